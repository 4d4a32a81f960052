//! The document of the JSON API: OpenAPI 3.1, its schemas made from the types of the answers.

use axum::response::Response;
use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use super::api::{self, Explanation, Problem};
use super::events::{FlowsEvent, StatusEvent};
use crate::report::changes::Changes;
use crate::report::flows::Flows;
use crate::report::status::Status;

/// Where OpenAPI looks for schemas.
const SCHEMAS: &str = "/components/schemas";

/// Serves the document.
pub(super) async fn serve() -> Response {
    api::json(&document())
}

/// The document, the same for every daemon of this version.
pub(super) fn document() -> Value {
    let mut schemas =
        SchemaSettings::draft2020_12().for_serialize().with(|settings| settings.definitions_path = SCHEMAS.into()).into_generator();
    let paths = json!({
        "/api/v1/status": get(
            "Workloads, bindings, NICs and services, as `egressd status -o json` prints them",
            &[],
            &schemas.subschema_for::<Status>(),
            &mut schemas,
        ),
        "/api/v1/flows": get(
            "Flows and rates of each exit; with `workload` its open flows as well, at most 1,000",
            &[parameter("workload", false, "A workload as status names it, its address, or pod/NAME")],
            &schemas.subschema_for::<Flows>(),
            &mut schemas,
        ),
        "/api/v1/changes": get(
            "The last 200 changes of workloads, oldest first",
            &[],
            &schemas.subschema_for::<Changes>(),
            &mut schemas,
        ),
        "/api/v1/explain": get(
            "What happens to a packet of a workload, as `egressd explain` prints it",
            &[
                parameter("from", true, "A workload as status names it, its address, a container's id, or pod/NAME"),
                parameter("to", false, "The address of the destination; any outside address when not given"),
            ],
            &schemas.subschema_for::<Explanation>(),
            &mut schemas,
        ),
        "/api/v1/events": { "get": {
            "summary": "Server-sent events: `status` when anything but a counter has changed (StatusEvent), `flows` once a second (FlowsEvent)",
            "responses": { "200": { "description": "Events until the client goes", "content": { "text/event-stream": { "schema": {
                "anyOf": [schemas.subschema_for::<StatusEvent>(), schemas.subschema_for::<FlowsEvent>()],
            } } } } },
        } },
    });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "egressd",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "State of the daemon of one host: read only, at the address of `egressd run --ui-address`. \
                Fields may be added in later versions; those that are here stay as they are.",
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn get(summary: &str, parameters: &[Value], answer: &Schema, schemas: &mut SchemaGenerator) -> Value {
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let problem = schemas.subschema_for::<Problem>();
    let mut operation = json!({
        "summary": summary,
        "responses": {
            "200": { "description": "OK", "content": content(answer.clone().to_value()) },
            "default": { "description": "The problem, with the cure", "content": content(problem.to_value()) },
        },
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    json!({ "get": operation })
}

fn parameter(name: &str, required: bool, description: &str) -> Value {
    json!({ "name": name, "in": "query", "required": required, "description": description, "schema": { "type": "string" } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `UPDATE_GENERATED=1` the file is written instead.
    #[test]
    fn the_committed_document_of_the_api_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.json");
        let text = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(committed == text, "docs/api.json is not what the types say; run the tests once with UPDATE_GENERATED=1");
    }
}
