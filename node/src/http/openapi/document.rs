//! The document as a whole, and the test that holds the checked-in one to it.

use super::operation::Operation;
use super::{cluster, coordination, keys, parameters, schemas};
use serde_json::{Map, Value, json};

const DESCRIPTION: &str = "\
Any node takes any request. Every error is a problem document (RFC 9457) with a stable `code` and, on writes, an `outcome`: \
`not_applied`, `applied` or `unknown`. A query parameter or JSON member that is not known is refused. A method that a path does \
not take is a 405 `method_not_allowed` with `Allow`; a path that is not here is a 404 `no_such_route`.";

fn operations() -> Vec<Operation> {
    let groups = [keys::operations(), coordination::operations(), cluster::operations()];
    groups.into_iter().flatten().collect()
}

fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    let mut responses: Map<String, Value> = Map::new();
    for operation in operations() {
        let path = paths.entry(operation.path).or_insert_with(|| json!({}));
        path[operation.method.to_lowercase()] = operation.to_json(&mut responses);
        if let Some(head) = operation.head() {
            path["head"] = head;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Balsa",
            "summary": "A strongly consistent, replicated key-value store",
            "description": DESCRIPTION,
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "servers": [{ "url": "/", "description": "The node that gave this document" }],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "parameters": parameters::of_requests(),
            "headers": parameters::of_answers(),
            "responses": responses,
        },
    })
}

mod tests {
    use super::*;
    use crate::http::route::Route;
    use balsa_wire::problem::Code;
    use std::path::Path;

    const RENEW: &str = "BALSA_RENEW_OPENAPI=1 cargo test -p balsa-node --lib openapi";

    #[test]
    fn the_document_is_what_the_code_says() {
        let written = format!("{:#}\n", document());
        if std::env::var_os("BALSA_RENEW_OPENAPI").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
            std::fs::write(path, written).unwrap();
            return;
        }
        // Not assert_eq: two documents of thousands of lines tell nobody anything.
        assert!(
            written.as_bytes() == super::super::DOCUMENT,
            "docs/openapi.json differs from the code; renew it:\n  {RENEW}"
        );
    }

    #[test]
    fn every_route_and_method_is_there_and_no_other() {
        for route in Route::ALL {
            let mut methods: Vec<&str> = operations()
                .iter()
                .filter(|operation| operation.route == route && operation.path != "/healthz")
                .map(|operation| operation.method)
                .collect();
            let mut allowed: Vec<&str> =
                route.allow().split(", ").filter(|method| !matches!(*method, "" | "HEAD")).collect();
            methods.sort_unstable();
            allowed.sort_unstable();
            assert_eq!(methods, allowed, "{route:?}");
        }
    }

    #[test]
    fn every_code_is_somewhere() {
        for code in Code::ALL {
            assert!(operations().iter().any(|operation| operation.codes().contains(code)), "{code:?}");
        }
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(all: &Value, value: &Value) {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(all.pointer(pointer).is_some(), "{reference}");
                    }
                    members.values().for_each(|member| check(all, member));
                }
                Value::Array(items) => items.iter().for_each(|item| check(all, item)),
                _ => {}
            }
        }
        let all = document();
        check(&all, &all);
    }
}
