# A release of the program: one verb, and what it consists of.

## release: write VERSION everywhere, date the changelog, build and check wheel and sdist, commit and tag
.PHONY: release
release: $(VENV)/.dev
	@[ -n "$(VERSION)" ] || { echo "Say which: make release VERSION=0.2.0"; exit 1; }
	$(BIN)/python scripts/release.py prepare $(VERSION)
	$(MAKE) dist || { git checkout -- CHANGELOG.md src/keyrack/__init__.py deploy/chart/Chart.yaml; exit 1; }
	$(BIN)/python scripts/release.py commit $(VERSION)

## dist: build wheel and sdist into dist/ and check that they hold what they should
.PHONY: dist
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m hatchling build
	$(BIN)/python scripts/check_dist.py dist/*.whl dist/*.tar.gz
