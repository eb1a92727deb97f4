//! The OpenAPI description, made from the route table.

use hyper::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::{
    Knock, json as answer,
    table::{Guard, Route, TABLE},
};
use crate::relay::Body;

pub(super) async fn describe(_: Knock) -> Response<Body> {
    answer(StatusCode::OK, &description())
}

fn description() -> Value {
    let mut paths = Map::new();
    for route in TABLE {
        let methods = paths.entry(route.path).or_insert_with(|| json!({}));
        methods[route.method.to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "lovable", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}

fn operation(route: &Route) -> Value {
    let in_path = route.path.split_once('{').and_then(|(_, it)| it.split_once('}')).map(|(name, _)| name);
    let mut parameters: Vec<Value> = in_path
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .into_iter()
        .collect();
    parameters.extend(
        route.query.iter().map(|name| json!({"name": name, "in": "query", "schema": {"type": "string"}})),
    );
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": {
            "200": {"description": "as asked"},
            "default": {"description": "a failure, in the shape of the dialect"},
        },
    });
    let has_body = !route.path.contains('{') && !route.path.ends_with("/probe");
    let may_have = route.path.ends_with("/trust");
    if route.method == "POST" && (has_body || may_have) {
        operation["requestBody"] =
            json!({"required": has_body, "content": {"application/json": {"schema": {"type": "object"}}}});
    }
    if route.guard == Guard::Changes {
        operation["x-changes"] = json!(true);
    }
    operation
}

fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '{', '}', '.']).filter(|it| !it.is_empty());
    std::iter::once(route.method.to_ascii_lowercase())
        .chain(words.map(str::to_owned))
        .collect::<Vec<_>>()
        .join("_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_described_once() {
        let description = description();
        let described: usize =
            description["paths"].as_object().unwrap().values().map(|it| it.as_object().unwrap().len()).sum();
        assert_eq!(described, TABLE.len());
        for route in TABLE {
            let operation = &description["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.summary, "{} {}", route.method, route.path);
        }
    }
}
