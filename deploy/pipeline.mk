# What the Jenkinsfile's stages call and nothing else has; deploy/jenkins/README.md explains it.
# IMAGE and TAG are those of deploy/image.mk. KUBECONFIG, REGISTRY_USER and REGISTRY_PASSWORD
# come from the environment only: what is secret must not stand in the arguments of a process.

PIPELINE_DIR := .delivery/pipeline
PIPELINE_BIN := $(PIPELINE_DIR)/venv/bin
PIPELINE_NPM := tests/delivery/pipeline_support/groovy-lint

# Runs one of the scripts. What stands on make's command line, like ENVIRONMENT=staging, reaches it by itself.
PIPELINE = @PLATFORMS='$(subst ','\'',$(PLATFORMS))' IMAGE='$(subst ','\'',$(IMAGE))' TAG='$(subst ','\'',$(TAG))' scripts/pipeline-

## pipeline-check: check the names of image and commit that a build was given
.PHONY: pipeline-check
pipeline-check:
	$(PIPELINE)check.sh

## pipeline-check-access: check that the registry and both clusters let us in; change nothing
.PHONY: pipeline-check-access
pipeline-check-access:
	$(PIPELINE)check.sh access

## image-exists: succeed if the image of this commit exists, here or in the registry
.PHONY: image-exists
image-exists:
	$(PIPELINE)image.sh

## publish: push the image of this commit (REGISTRY_USER, REGISTRY_PASSWORD)
.PHONY: publish
publish:
	$(PIPELINE)publish.sh

## image-digest: print the digest of the pushed image (REGISTRY_USER, REGISTRY_PASSWORD where it is private)
.PHONY: image-digest
image-digest:
	$(PIPELINE)digest.sh

## sign: sign the image that was pushed, attach its packages and origin, verify it (cosign, COSIGN_PRIVATE_KEY)
.PHONY: sign
sign:
	$(PIPELINE)sign.sh

## deploy: deploy the image of this commit with the chart (ENVIRONMENT=staging or production, KUBECONFIG)
.PHONY: deploy
deploy:
	$(PIPELINE)deploy.sh

## verify: check what was deployed from outside (ENVIRONMENT, KUBECONFIG; VERIFY_URL, or through the Service)
.PHONY: verify
verify:
	$(PIPELINE)verify.sh

## rollback: put the last deploy back (ENVIRONMENT, KUBECONFIG; REVISION for an older one)
.PHONY: rollback
rollback:
	$(PIPELINE)rollback.sh

## recover: put back a deploy that was cut off; change nothing if none was (ENVIRONMENT, KUBECONFIG)
.PHONY: recover
recover:
	$(PIPELINE)rollback.sh unfinished

## results-clean: remove test results and reports of earlier builds
.PHONY: results-clean
results-clean:
	rm -rf test-results .delivery/reports

## results: if the tests in JUNIT (a directory) left no results, leave one that says that they did not start
.PHONY: results
results:
	@mkdir -p '$(JUNIT)'
	@ls '$(JUNIT)'/*.xml >/dev/null 2>&1 || printf '%s\n' \
	  '<testsuite name="tests" tests="1" errors="1"><testcase classname="tests" name="start">' \
	  '<error message="the tests did not start: see the log"/></testcase></testsuite>' >'$(JUNIT)/not-started.xml'

## plugins-check: download the controller's plugins and hold them against each other and against Jenkins
.PHONY: plugins-check
plugins-check:
	DOCKER_BUILDKIT=1 $(DOCKER) build $(IMAGE_ARGS) --target plugins deploy/jenkins

## contained: run TARGET (pipeline-test, infra-test, image-test) as root in a throw-away Debian; needs Docker alone
.PHONY: contained
contained:
	@scripts/contained.sh '$(TARGET)' $(LIMIT)

## prune: make room on an agent: old images, build cache, workspaces, virtualenvs (KEEP_DAYS, VENV_DAYS)
.PHONY: prune
prune:
	@scripts/pipeline-prune.sh

# All shell scripts: by their names, and by their first lines where the name does not tell.
FILES   = git ls-files --cached --others --exclude-standard
SCRIPTS = { $(FILES) '*.sh'; $(FILES) | xargs -d '\n' awk 'FNR == 1 && /^\#!.*[\/ ](ba|da)?sh( |$$)/ {print FILENAME} {nextfile}' 2>/dev/null; } | sort -u

# B104, B108: addresses and directories that are meant (--host, /dev/shm); nothing secret is written there.
BANDIT = $(PIPELINE_BIN)/bandit --quiet --recursive --severity-level medium --skip B104,B108

# Apart from the rest: it is nearly 400 MB large and pins much that others need too. Its rules are in .semgrep/, so
# nothing is fetched, and nothing is told to anybody.
SEMGREP_DIR := .delivery/semgrep
SEMGREP = PATH="$(abspath $(SEMGREP_DIR))/bin:$$PATH" SEMGREP_SETTINGS_FILE=$(abspath $(SEMGREP_DIR))/settings.yml \
  semgrep scan --quiet --metrics off --disable-version-check --config .semgrep

## static-analysis: shellcheck all scripts; look for unsafe code in src with bandit and semgrep (REPORTS: a directory for reports)
.PHONY: static-analysis
static-analysis: $(PIPELINE_DIR)/.ready $(SEMGREP_DIR)/.ready
ifdef REPORTS
	@# First, so that they are there when the checks below fail.
	@mkdir -p '$(REPORTS)/analysis'
	$(PIPELINE_BIN)/shellcheck --external-sources --format json $$($(SCRIPTS)) >'$(REPORTS)/analysis/shellcheck.json' || true
	$(BANDIT) --exit-zero --format json --output '$(REPORTS)/analysis/bandit.json' src
	$(SEMGREP) --error --sarif-output '$(REPORTS)/analysis/semgrep.sarif' src
else
	$(SEMGREP) --error src
endif
	$(PIPELINE_BIN)/shellcheck --external-sources $$($(SCRIPTS))
	$(BANDIT) src

$(SEMGREP_DIR)/.ready: requirements/delivery-semgrep.txt
	@$(PYTHON) -m venv $(SEMGREP_DIR) || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(SEMGREP_DIR)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

## pipeline-test: run the real Jenkinsfile with recorded steps, its scripts against stubs, check the controller
.PHONY: pipeline-test
pipeline-test: pipeline-tools $(PIPELINE_DIR)/.ready $(SEMGREP_DIR)/.ready $(PIPELINE_DIR)/.groovy-lint $(CHART_TOOLS)/.ready $(VENV)/.runtime
	VENV=$(VENV) $(PIPELINE_BIN)/python -m pytest tests/delivery/test_pipeline.py tests/delivery/test_static_analysis.py $(ARGS)

.PHONY: pipeline-tools
pipeline-tools:
	@missing=; for tool in java:default-jre-headless groovy:groovy npm:npm; do \
	  command -v $${tool%:*} >/dev/null || missing="$$missing $${tool#*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && [ -n "$${CI:-}$${INSTALL:-}" ]; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	else echo "For these tests, install on Debian or Ubuntu: apt-get install$$missing (or as root: make pipeline-test INSTALL=1)"; exit 1; fi

$(PIPELINE_DIR)/.ready: requirements/delivery-pipeline.txt
	@$(PYTHON) -m venv $(PIPELINE_DIR)/venv || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PIPELINE_BIN)/python -m pip --disable-pip-version-check --quiet install --require-hashes -r $<
	@touch $@

$(PIPELINE_DIR)/.groovy-lint: $(PIPELINE_NPM)/package.json $(PIPELINE_NPM)/package-lock.json
	@mkdir -p $(PIPELINE_DIR)/groovy-lint
	cp $^ $(PIPELINE_DIR)/groovy-lint/
	npm --prefix $(PIPELINE_DIR)/groovy-lint ci --ignore-scripts --no-audit --no-fund --loglevel error
	@touch $@
