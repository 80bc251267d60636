//! What a run is interrupted for, as a question to the person, and the answer in the form that the server asks for.

use crate::asking::{Ask, Choice, Decision};
use serde_json::{Value, json};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Interrupt(Value);

/// What the server wants to be told.
enum Wanted<'a> {
    /// Yes or no.
    Consent,
    /// One of these.
    OneOf(Vec<&'a str>),
    /// Words.
    Words,
}

impl Interrupt {
    /// Those of a run's outcome, which are empty where it was not interrupted.
    pub(super) fn all(finished: &Value) -> Vec<Self> {
        let outcome = &finished["outcome"];
        let listed = if outcome["type"] == "interrupt" { outcome["interrupts"].as_array() } else { None };
        listed.into_iter().flatten().cloned().map(Self).collect()
    }

    /// The part of the schema that has the answer in it, and its name where it is one of an object's.
    fn schema(&self) -> (Option<&str>, &Value) {
        let schema = &self.0["responseSchema"];
        let Some(properties) = schema["properties"].as_object() else { return (None, schema) };
        let required = schema["required"].as_array().and_then(|required| required.first()?.as_str());
        let is_boolean = |name: &&String| properties[*name]["type"] == "boolean";
        let name =
            required.or_else(|| properties.keys().find(is_boolean).or(properties.keys().next()).map(String::as_str));
        name.map_or((None, schema), |name| (Some(name), &schema["properties"][name]))
    }

    fn wanted(&self) -> Wanted<'_> {
        let (_, schema) = self.schema();
        let listed: Vec<&str> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match &schema["type"] {
            _ if !listed.is_empty() => Wanted::OneOf(listed),
            Value::String(kind) if kind == "boolean" => Wanted::Consent,
            _ => Wanted::Words,
        }
    }

    /// The question.
    pub(super) fn ask(&self) -> Ask {
        let text = |name: &str| self.0[name].as_str().unwrap_or_default();
        let asked =
            [text("message"), text("reason"), "The agent asks"].into_iter().find(|text| !text.trim().is_empty());
        let choice = |id: &str, kind: &str| Choice { id: id.to_owned(), label: id.to_owned(), kind: kind.to_owned() };
        let options = match self.wanted() {
            Wanted::Consent => vec![choice("Yes", "allow_once"), choice("No", "reject_once")],
            Wanted::OneOf(listed) => listed.into_iter().map(|id| choice(id, "")).collect(),
            Wanted::Words => Vec::new(),
        };
        let (free, default) = (options.is_empty(), options.iter().find(|option| option.kind == "reject_once"));
        let default = default.map(|option| option.id.clone());
        Ask { text: asked.unwrap_or_default().to_owned(), free, default, options, call: text("toolCallId").to_owned() }
    }

    /// What the next run is told of it.
    pub(super) fn entry(&self, decision: &Decision) -> Value {
        let id = &self.0["id"];
        let value = match decision {
            Decision::Nothing => return json!({"interruptId": id, "status": "cancelled"}),
            Decision::Chosen(option) if matches!(self.wanted(), Wanted::Consent) => json!(option == "Yes"),
            Decision::Chosen(text) | Decision::Said(text) => json!(text),
        };
        let payload = self.schema().0.map_or(value.clone(), |name| json!({name: value}));
        json!({"interruptId": id, "status": "resolved", "payload": payload})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interrupt(schema: Value) -> Interrupt {
        let one = json!({"id": "i", "reason": "r", "message": "May I?", "responseSchema": schema});
        Interrupt::all(&json!({"outcome": {"type": "interrupt", "interrupts": [one]}})).remove(0)
    }

    #[test]
    fn an_answer_has_the_form_that_was_asked_for() {
        let chosen = |text: &str| Decision::Chosen(text.to_owned());
        let said = |text: &str| Decision::Said(text.to_owned());
        let object = |properties: Value| json!({"type": "object", "properties": properties});
        for (schema, decision, payload) in [
            (json!({"type": "boolean"}), chosen("Yes"), json!(true)),
            (
                object(json!({"note": {"type": "string"}, "approved": {"type": "boolean"}})),
                chosen("No"),
                json!({"approved": false}),
            ),
            (json!({"enum": ["a", "b"]}), chosen("b"), json!("b")),
            (object(json!({"name": {"type": "string"}})), said("x"), json!({"name": "x"})),
            (json!(null), said("x"), json!("x")),
        ] {
            let entry = interrupt(schema.clone()).entry(&decision);
            assert_eq!(entry, json!({"interruptId": "i", "status": "resolved", "payload": payload}), "{schema}");
        }
        let entry = interrupt(json!(null)).entry(&Decision::Nothing);
        assert_eq!(entry, json!({"interruptId": "i", "status": "cancelled"}));
    }

    #[test]
    fn a_question_has_the_options_that_there_are() {
        let ask = interrupt(json!({"type": "boolean"})).ask();
        assert_eq!(
            (ask.text.as_str(), ask.options.len(), ask.free, ask.default.as_deref()),
            ("May I?", 2, false, Some("No"))
        );
        let ask = interrupt(json!({"type": "string"})).ask();
        assert_eq!((ask.options.len(), ask.free, ask.default), (0, true, None));
    }
}
