# The image: build it, exercise it, scan it. deploy/image/README.md has more.

DOCKER     ?= docker
REGISTRY   ?= docker.io
REPOSITORY ?= keyrack/keyrack
IMAGE      ?= $(REGISTRY)/$(REPOSITORY)
# A tag is a commit. One that is followed by -dirty was built from files that are in no commit.
COMMIT     ?= $(or $(shell git describe --always --abbrev=40 --exclude '*' --dirty 2>/dev/null),unknown)
TAG        ?= $(COMMIT)
BASE       ?= python:3.13-slim
# When the commit was made, and not when the image was: the same commit is the same image.
CREATED    ?= $(or $(shell git show --no-patch --format=%cI HEAD 2>/dev/null),unknown)
# More flags of `docker build`: --pull, --platform, --network host, ...
IMAGE_ARGS ?=
# Behind a mirror or a proxy: a pip.conf for the build, and a file of certificates, which that
# pip.conf names /run/secrets/ca.pem. Neither gets into the image.
PIP_CONF   ?=
PIP_CA     ?=

# More than one: linux/amd64,linux/arm64. Each is built under a tag of its own, TAG-amd64 and TAG-arm64; TAG is that of
# this machine, and in a registry (make publish) the index of all.
PLATFORMS  ?=

IMAGE_SECRETS = $(addprefix --secret id=pip.conf$(comma)src=,$(PIP_CONF)) $(addprefix --secret id=ca.pem$(comma)src=,$(PIP_CA))
comma := ,
IMAGE_VENV   := .delivery/image
IMAGE_CHECK  := deploy/image/check.sh

## image: build docker.io/keyrack/keyrack:<commit> on python:3.13-slim (IMAGE, TAG, BASE, PLATFORMS for others)
.PHONY: image
image:
	@$(IMAGE_CHECK) builder "$(DOCKER)"
ifneq ($(PLATFORMS),)
	@$(IMAGE_CHECK) platforms "$(DOCKER)" $(subst $(comma), ,$(PLATFORMS))
endif
	$(foreach platform,$(or $(subst $(comma), ,$(PLATFORMS)),own),$(call build,$(platform)) &&) true

build = DOCKER_BUILDKIT=1 $(DOCKER) build $(IMAGE_ARGS) $(IMAGE_SECRETS) \
  --build-arg BASE=$(BASE) --build-arg COMMIT=$(COMMIT) --build-arg CREATED=$(CREATED) \
  --build-arg VERSION=$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' src/keyrack/__init__.py) \
  $(if $(filter own,$1),--tag $(IMAGE):$(TAG),--platform $1 --tag $(IMAGE):$(call arch_tag,$1) $(if $(filter $1,$(OWN_PLATFORM)),--tag $(IMAGE):$(TAG))) .
arch_tag = $(TAG)-$(subst /,-,$(patsubst linux/%,%,$1))
OWN_PLATFORM = linux/$(subst x86_64,amd64,$(subst aarch64,arm64,$(shell uname -m)))

## scan: fail when the image has a flaw that is known and fixed (trivy; without it pip-audit and apt; REPORTS keeps it)
.PHONY: scan
scan: $(IMAGE_VENV)/.ready
	$(foreach tag,$(or $(foreach platform,$(subst $(comma), ,$(PLATFORMS)),$(call arch_tag,$(platform))),$(TAG)), \
	  DOCKER="$(DOCKER)" PIP_AUDIT=$(IMAGE_VENV)/bin/pip-audit deploy/image/scan.sh $(IMAGE):$(tag) &&) true

## sbom: print the packages of the image as CycloneDX
.PHONY: sbom
sbom:
	@DOCKER="$(DOCKER)" $(PYTHON) deploy/image/sbom.py $(IMAGE):$(TAG)

## image-test: build, run and push the image for real, and try the install scripts (needs root)
.PHONY: image-test
image-test: $(IMAGE_VENV)/.ready
	@$(IMAGE_CHECK) tests
	$(IMAGE_VENV)/bin/hadolint Dockerfile
	$(IMAGE_VENV)/bin/python -m pytest --override-ini=addopts= -ra --timeout=300 \
	  tests/delivery/test_image.py tests/delivery/test_install.py $(ARGS)

$(IMAGE_VENV)/.ready: requirements/delivery-image.txt
	@$(PYTHON) -m venv $(IMAGE_VENV) || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(IMAGE_VENV)/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes \
	  -r requirements/delivery-image.txt
	@touch $@
