"""Renders a chart with the values that are given as JSON: Helm's own engine, as a library.

Prints JSON: what `helm lint --strict` finds, and each file by its name. A chart that refuses its values
ends it with 1, and Helm's message.
"""

import json
import sys

import helm_python as helm

chart, values = sys.argv[1], json.loads(sys.argv[2])
try:
    with helm.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        files = loaded.render(values, name="vip", namespace="kube-system")
    lint = helm.lint(chart, values, strict=True)
except helm.HelmError as error:
    sys.exit(str(error))
# Below a warning is advice: an icon.
findings = [found for found in lint["messages"] if found["severity"] > 1]
json.dump({"findings": findings + lint["errors"], "files": files}, sys.stdout)
