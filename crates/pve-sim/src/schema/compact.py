"""Writes params.json: what PVE's API schema says of requests, without its prose and without its answers.

    python3 compact.py api-schema-8.4.json > params.json

The result is {"types": [...], "paths": {template: {method: {...}}}}. A parameter is a number, its place in "types",
because many methods share the same declarations.
"""

import json
import sys

KEPT = ("type", "optional", "format", "enum", "minimum", "maximum", "minLength", "maxLength", "pattern", "requires",
        "alias", "keyAlias", "default_key", "items", "properties")


def kept(declaration):
    slim = {key: declaration[key] for key in KEPT if key in declaration}
    if isinstance(slim.get("format"), dict):
        slim["format"] = {name: kept(value) for name, value in sorted(slim["format"].items())}
    if isinstance(slim.get("properties"), dict):
        slim["properties"] = {name: kept(value) for name, value in sorted(slim["properties"].items())}
    if isinstance(slim.get("items"), dict):
        slim["items"] = kept(slim["items"])
    return slim


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        paths = json.load(file)["paths"]
    types, places, compact = [], {}, {}
    for template, methods in sorted(paths.items()):
        for method, declared in sorted(methods.items()):
            parameters = {}
            for name, declaration in sorted((declared["parameters"].get("properties") or {}).items()):
                text = json.dumps(kept(declaration), sort_keys=True)
                if text not in places:
                    places[text] = len(types)
                    types.append(json.loads(text))
                parameters[name] = places[text]
            entry = {"p": parameters}
            permissions = declared.get("permissions") or {}
            if "check" in permissions:
                entry["check"] = permissions["check"]
            if "user" in permissions:
                entry["user"] = permissions["user"]
            if declared.get("proxyto"):
                entry["proxyto"] = declared["proxyto"]
            if not declared.get("allowtoken", 1):
                entry["noToken"] = 1
            if declared["parameters"].get("additionalProperties"):
                entry["open"] = 1
            href = ((declared.get("returns") or {}).get("links") or [{}])[0].get("href", "")
            if method == "GET" and href.startswith("{"):
                entry["index"] = href.strip("{}")
            compact.setdefault(template, {})[method] = entry
    json.dump({"types": types, "paths": compact}, sys.stdout, sort_keys=True, separators=(",", ":"))
    print()


main()
