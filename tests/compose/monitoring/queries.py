"""Every query of the dashboard, the rules and the console against a Prometheus that has real data.

    queries.py PROMETHEUS_URL PGSPLIT_ADMIN_URL REPOSITORY

One line for each finding, "ok" or "FAIL"; run.sh counts them.
"""

import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from html import unescape
from pathlib import Path

PROMETHEUS, ADMIN, ROOT = sys.argv[1], sys.argv[2], Path(sys.argv[3])
BEGAN = time.time() - 300

# Queries whose answer is rightly empty when all is well, and why. Anything else has to bring data.
MAY_BE_EMPTY: dict[str, str] = {}

# What Grafana fills in; the longer of two names that begin alike comes first.
VARIABLES = {"$instance": ".+", "$__rate_interval": "30s", "$__interval": "5s", "$__range_s": "300", "$__range": "5m"}

NAME = re.compile(r"\b(?:pgsplit|process)_[a-z0-9_]+")
SUFFIX = re.compile(r"_(?:bucket|sum|count)$")


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.read().decode()


def api(path, **parameters):
    """The answer of Prometheus, or a ValueError with its words."""
    answer = json.loads(get(f"{PROMETHEUS}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"))
    if answer["status"] != "success":
        raise ValueError(answer["error"])
    return answer["data"]


def over_time(query):
    return api("query_range", query=query, start=BEGAN, end=time.time(), step=1)["result"]


def now(query):
    return api("query", query=query)["result"]


def has_data(series):
    values = series.get("values") or [series["value"]]
    return any(math.isfinite(float(value)) for _, value in values)


def say(problem, what):
    print(f"FAIL  {what}: {problem}" if problem else f"ok    {what}")


def filled(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def fault_of_query(ask, query, labels=()):
    """Why the query is no good, or nothing. Labels are those that a legend names."""
    try:
        series = ask(query)
    except ValueError as error:
        return f"{error}: {query}"
    if query in MAY_BE_EMPTY:
        return None
    if not any(has_data(one) for one in series):
        return f"no data: {query}"
    absent = [label for label in labels if not any(label in one["metric"] for one in series)]
    return f"no label {', '.join(absent)}: {query}" if absent else None


def dashboard():
    """Panel title, way to ask, query and labels of the legend, of each target."""
    whole = json.loads((ROOT / "compose/grafana/dashboards/dashboard.json").read_text())
    for annotation in whole["annotations"]["list"]:
        yield f"dashboard, annotation {annotation['name']}", over_time, annotation["expr"], ()
    for panel in whole["panels"]:
        for target in panel.get("targets", []):
            labels = re.findall(r"{{(\w+)}}", target["legendFormat"])
            ask = now if target.get("instant") else over_time
            yield f"dashboard, {panel['title']}, {target['refId']}", ask, target["expr"], labels


def console():
    page = (ROOT / "compose/prometheus/consoles/pgsplit.html").read_text()
    for query in re.findall(r'data-query="([^"]+)"', page):
        yield unescape(query).replace("$window", "20s")


def rules():
    return [rule for group in api("rules")["groups"] for rule in group["rules"]]


def real_metrics():
    """Names, and the values that each label of a name has, by pgsplit's own /metrics."""
    names, labels = set(), {}
    for line in get(f"{ADMIN}/metrics").splitlines():
        if line.startswith("# TYPE "):
            names.add(line.split()[2])
        elif not line.startswith("#"):
            series = re.match(r"([a-z0-9_]+)(?:{(.*)})? ", line)
            of_name = labels.setdefault(series[1], {})
            for label, value in re.findall(r'(\w+)="([^"]*)"', series[2] or ""):
                of_name.setdefault(label, set()).add(value)
    return names, labels


def fault_of_names(query, real, documented):
    for name in NAME.findall(query):
        base = name if name in real else SUFFIX.sub("", name)
        if base not in documented:
            return f"{name} is not in docs/metrics.md"
        if base not in real:
            return f"{name} is not in /metrics"
    return None


def fault_of_labels(query, labels):
    """A matcher on a label or value that no series has matches nothing for ever: an alert that is never heard of."""
    for name, matchers in re.findall(r"((?:pgsplit|process)_[a-z0-9_]+){([^}]*)}", query):
        for label, values in re.findall(r'(\w+)\s*[=!]~?\s*"([^"]*)"', matchers):
            if label in ("job", "instance"):
                continue
            known = labels.get(name, {}).get(label)
            if known is None:
                return f"{name} has no label {label}"
            unknown = set(values.split("|")) - known
            if unknown:
                return f'{label} of {name} is never {", ".join(sorted(unknown))}'
    used = {label.strip() for names in re.findall(r"\b(?:by|on) \(([^)]*)\)", query) for label in names.split(",")}
    there = {"job", "instance", "le"} | {label for of_name in labels.values() for label in of_name}
    return f"no metric has the label {', '.join(sorted(used - there))}" if used - there else None


def main():
    real, labels = real_metrics()
    documented = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(), re.M))
    asked = []
    for what, ask, query, legend in dashboard():
        query = filled(query)
        asked.append((what, query))
        say(fault_of_query(ask, query, legend), what)
    for query in console():
        asked.append(("console", query))
        say(fault_of_query(over_time, query), f"console, {query[:60]}")
    for rule in rules():
        what = f"rule {rule['name']}"
        asked.append((what, rule["query"]))
        problem = rule.get("lastError") if rule["health"] != "ok" else None
        try:
            over_time(rule["query"])
        except ValueError as error:
            problem = str(error)
        for alert in rule["alerts"]:
            if "error expanding" in json.dumps(alert["annotations"]):
                problem = f"annotation: {alert['annotations']}"
        say(problem, what)
    for check, args, what in (
        (fault_of_names, (real, documented), "names are documented and there"),
        (fault_of_labels, (labels,), "labels and their values are there"),
    ):
        faults = [f"{where}: {fault}" for where, query in asked if (fault := check(query, *args))]
        say("; ".join(faults), f"{len(asked)} queries: {what}")
    nobody = documented - {SUFFIX.sub("", n) if n not in real else n for _, query in asked for n in NAME.findall(query)}
    # Not a fault: some figures are for looking closer only.
    print(f"      in no query: {', '.join(sorted(nobody)) or 'none'}")


main()
