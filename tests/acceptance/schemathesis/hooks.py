"""What OpenAPI cannot say of a request, so that what is sent as right is right; and what keeps the run short."""

import json
import os
import re

import schemathesis

# The identities of the cluster's members.
MEMBERS = os.environ["BALSA_MEMBERS"].split()

# Headers of requests as the document has them, by the names of components.
HEADERS = {}

# Pairs of parameters and headers of which one is given.
APART_IN_QUERY = [("ttl", "lease"), ("prefix", "start"), ("prefix", "end"), ("keys_only", "count_only"), ("key", "prefix")]
APART_IN_HEADERS = [("If-Match", "If-None-Match"), ("Idempotency-Key", "Balsa-Session")]


def is_right(case):
    meta = getattr(case, "meta", None)
    return meta is None or meta.generation.mode.is_positive


@schemathesis.hook
def filter_case(context, case):
    """No member of the cluster is changed or removed: its answers tell their identities."""
    if "/members" not in case.operation.path:
        return True
    places = (place for place in (case.path_parameters, case.body) if isinstance(place, dict))
    return not any(str(place.get("id", "")).lstrip("0") in MEMBERS for place in places)


@schemathesis.hook
def map_case(context, case):
    """Takes out of a request that is to be right what does not go together."""
    if is_right(case):
        query, headers, path = case.query, case.headers, case.operation.path
        for parameter in case.operation.definition.raw.get("parameters", []):
            header = HEADERS.get(parameter.get("$ref", "").rsplit("/", 1)[-1])
            # Some that are said to be right are empty.
            if header and headers and not re.fullmatch(header["schema"]["pattern"], str(headers.get(header["name"], ""))):
                headers.pop(header["name"], None)
        for pairs, given in ((APART_IN_QUERY, query), (APART_IN_HEADERS, headers)):
            for one, other in pairs:
                if given and one in given and other in given:
                    del given[other]
        if path == "/v1/watch" and "key" not in query and "prefix" not in query:
            query["prefix"] = ""
        if path == "/v1/kv":
            fit_range(case.method, query)
        if headers and "Balsa-Session" in headers:
            number, sequence, _ = str(headers["Balsa-Session"]).split(":")
            headers["Balsa-Session"] = f"{number}:{sequence}:1"
        if path == "/v1/txn" and isinstance(case.body, dict):
            for branch in ("then", "else"):
                if branch in case.body:
                    case.body[branch] = once_a_key(case.body[branch])
        whole = with_whole_numbers(case.body)
        if repr(whole) != repr(case.body):  # one that is set is looked at anew, also where it is none
            case.body = whole
    shorten(case)
    return case


def with_whole_numbers(value):
    """To JSON Schema 1.0 is an integer; to a reader of integers it is not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: with_whole_numbers(member) for name, member in value.items()}
    return [with_whole_numbers(item) for item in value] if isinstance(value, list) else value


def fit_range(method, query):
    if method.upper() == "DELETE":
        everything = not query.get("prefix") and not query.get("start") and "end" not in query
        query["all"] = "true" if everything else "false"
    else:
        # A cursor goes with the range and the revision that it came from.
        query.pop("cursor", None)
        if "limit" in query and not query.get("count_only"):
            query["limit"] = min(int(query["limit"]), 1000)


def once_a_key(operations):
    kept, written = [], set()
    for operation in operations:
        key = next((operation[kind]["key"] for kind in ("put", "delete") if kind in operation), None)
        if key is None or key not in written:
            kept.append(operation)
        written.add(key)
    return kept


def shorten(case):
    """Locks are not waited for, and do not stay."""
    if case.operation.label == "POST /v1/locks/{name}" and is_right(case) and isinstance(case.body, dict):
        for name, most in (("wait", "50ms"), ("ttl", "200ms")):
            if name in case.body:
                case.body[name] = most


@schemathesis.hook
def before_load_schema(context, raw_schema):
    """The document's own examples of answers are as its schemas say."""
    HEADERS.update(raw_schema["components"]["parameters"])
    from jsonschema_rs import Draft202012Validator

    def validate(schema, example, where):
        whole = {**schema, "components": raw_schema["components"]}
        errors = [error.message for error in Draft202012Validator(whole).iter_errors(example)]
        assert not errors, f"{where}: {json.dumps(example)}: {errors}"

    for path, methods in raw_schema["paths"].items():
        for method, operation in methods.items():
            bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
            for content in (media for body in bodies for media in body.get("content", {}).values()):
                examples = [content["example"]] if "example" in content else []
                examples += [example["value"] for example in content.get("examples", {}).values()]
                for example in examples:
                    validate(content["schema"], example, f"{method} {path}")
