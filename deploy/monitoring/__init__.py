"""Dashboard and alerting rules, made by `python -m deploy.monitoring` from the tables here.

`dashboard.json` is for Grafana, `rules.yaml` for Prometheus; the chart has a copy of the rules.
"""
