//! Schemas: of the types of `balsa-wire`, with what their derivation cannot say.

use super::operation::reference;
use crate::http::leases::TTL_MS;
use crate::http::locks::WAIT_MS_MAX;
use balsa_store::command::{TXN_OPS_MAX, TXN_RANGE_ITEMS_MAX};
use balsa_wire::{cluster, history, kv, leases, problem, txn};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// The longest key, in bytes; so it is in characters, of which each may have more.
const KEY_BYTES_MAX: u64 = 4096;

/// Types whose members, where they are there, are not `null`.
const REQUESTS: &[&str] = &[
    "AcquireLock",
    "AddMember",
    "CompactRequest",
    "GrantLease",
    "KeyOp",
    "PutOp",
    "RangeOp",
    "TransferLeadership",
    "TxnRequest",
];

/// All of them, by name.
pub(super) fn all() -> Map<String, Value> {
    let mut all = Map::new();
    derive::<kv::Item>(&mut all);
    derive::<kv::PutAnswer>(&mut all);
    derive::<kv::DeleteAnswer>(&mut all);
    derive::<kv::ClearAnswer>(&mut all);
    derive::<kv::SessionAnswer>(&mut all);
    derive::<txn::TxnRequest>(&mut all);
    derive::<txn::TxnAnswer>(&mut all);
    derive::<txn::RangeAnswer>(&mut all);
    derive::<txn::RangeDeleteAnswer>(&mut all);
    derive::<leases::GrantLease>(&mut all);
    derive::<leases::LeaseAnswer>(&mut all);
    derive::<leases::LeaseState>(&mut all);
    derive::<leases::LeasesAnswer>(&mut all);
    derive::<leases::RevokeAnswer>(&mut all);
    derive::<leases::AcquireLock>(&mut all);
    derive::<leases::LockAnswer>(&mut all);
    derive::<leases::LockState>(&mut all);
    derive::<leases::LocksAnswer>(&mut all);
    derive::<leases::ReleaseAnswer>(&mut all);
    derive::<history::CompactRequest>(&mut all);
    derive::<history::CompactAnswer>(&mut all);
    derive::<history::DeleteEvent>(&mut all);
    derive::<history::ProgressEvent>(&mut all);
    derive::<history::CompactedEvent>(&mut all);
    derive::<cluster::ClusterAnswer>(&mut all);
    derive::<cluster::AddMember>(&mut all);
    derive::<cluster::TransferLeadership>(&mut all);
    derive::<cluster::MembershipAnswer>(&mut all);
    derive::<cluster::ReadyAnswer>(&mut all);
    derive::<problem::Problem>(&mut all);
    for (name, schema) in &mut all {
        say_what_numbers_are(schema);
        without_what_is_unknown(schema);
        for_readers_of_json(schema);
        if REQUESTS.contains(&name.as_str()) {
            without_null(schema);
        }
    }
    narrow(&mut all);
    all
}

fn derive<T: ToSchema>(all: &mut Map<String, Value>) {
    let mut schemas = vec![(T::name().into_owned(), T::schema())];
    T::schemas(&mut schemas);
    for (name, schema) in schemas {
        if let Ok(schema) = serde_json::to_value(schema) {
            all.insert(name, schema);
        }
    }
}

/// Calls `with` for each schema in `schema`, itself included.
fn each(schema: &mut Value, with: &mut impl FnMut(&mut Map<String, Value>)) {
    match schema {
        Value::Object(members) => {
            with(members);
            members.values_mut().for_each(|member| each(member, with));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each(item, with)),
        _ => {}
    }
}

/// Formats of numbers are read as those of signed ones; bounds are not.
fn say_what_numbers_are(schema: &mut Value) {
    each(schema, &mut |members| {
        let max = match members.get("format").and_then(Value::as_str) {
            Some("int64") => u64::MAX,
            Some("int32") if members.get("type") == Some(&json!("integer")) => u64::from(u32::MAX),
            Some("int32") => u64::from(u32::MAX),
            _ => return,
        };
        members.remove("format");
        members.insert("maximum".into(), max.into());
    });
}

/// What readers take for what they do not know is never sent.
fn without_what_is_unknown(schema: &mut Value) {
    each(schema, &mut |members| {
        if let Some(Value::Array(values)) = members.get_mut("enum") {
            values.retain(|value| value != "other");
        }
    });
}

/// What comments say in terms of Rust.
fn for_readers_of_json(schema: &mut Value) {
    each(schema, &mut |members| {
        if let Some(Value::String(text)) = members.get_mut("description") {
            *text =
                text.replace("`None`", "none").replace("Code::", "").replace("[`", "`").replace("`]", "`");
        }
    });
}

fn without_null(schema: &mut Value) {
    each(schema, &mut |members| {
        if let Some(Value::Array(types)) = members.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = &types[..] {
                let only = only.clone();
                members.insert("type".into(), only);
            }
        }
    });
}

/// A key or the name of a lock.
pub(super) fn key() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": KEY_BYTES_MAX })
}

/// What is right beyond the types.
fn narrow(all: &mut Map<String, Value>) {
    let mut put = |name: &str, value: Value| all.insert(name.to_owned(), value);
    let number = |minimum: u64| json!({ "type": "integer", "minimum": minimum, "maximum": u64::MAX });
    let object = |required: &[&str], properties: Value| json!({ "type": "object", "required": required, "properties": properties, "additionalProperties": false });
    let base64 = || json!({ "type": "string", "pattern": BASE64 });

    let codes: Vec<&str> = problem::Code::ALL.iter().map(|code| code.as_str()).collect();
    put(
        "Code",
        json!({
            "description": "The kinds of problems. New ones may come; none changes its meaning.",
            "type": "string",
            "enum": codes,
        }),
    );
    put("NewValue", {
        let mut schema = object(&["value"], json!({ "value": {} }));
        schema["description"] = "A value: any JSON, kept byte for byte.".into();
        schema
    });
    put(
        "Empty",
        json!({ "type": "object", "additionalProperties": false, "description": "Nothing; the body may be left out." }),
    );

    let of_key = |name: &str, schema: Value| object(&["key", name], json!({ "key": key(), name: schema }));
    put(
        "Condition",
        json!({
            "description": "A condition of a key's revision, version (0: it is absent), value or existence; or of a lock's token.",
            "oneOf": [
                of_key("revision", number(0)),
                of_key("version", number(0)),
                of_key("value", json!({})),
                of_key("value_base64", base64()),
                of_key("exists", json!({ "type": "boolean" })),
                object(&["lock", "token"], json!({ "lock": key(), "token": number(0) })),
            ],
        }),
    );
    put("KeyOp", object(&["key"], json!({ "key": key() })));
    put(
        "PutOp",
        json!({
            "description": "Sets a key: to a JSON value, or to raw bytes in base64 with their type.",
            "oneOf": [
                object(&["key", "value"], json!({ "key": key(), "value": {}, "lease": number(1) })),
                object(
                    &["key", "value_base64"],
                    json!({
                        "key": key(),
                        "value_base64": base64(),
                        "content_type": { "type": "string", "pattern": CONTENT_TYPE },
                        "lease": number(1),
                    }),
                ),
            ],
        }),
    );
    let limit = || json!({ "type": "integer", "minimum": 1, "maximum": TXN_RANGE_ITEMS_MAX });
    let text = || json!({ "type": "string" });
    put(
        "RangeOp",
        json!({
            "description": "Reads a range: of a prefix, or from `start` up to and without `end`.",
            "oneOf": [
                object(&["prefix"], json!({ "prefix": text(), "limit": limit() })),
                object(&[], json!({ "start": text(), "end": text(), "limit": limit() })),
            ],
        }),
    );
    let op = |name: &str, of: &str| object(&[name], json!({ name: reference("schemas", of) }));
    put(
        "Op",
        json!({
            "description": "An operation of a transaction. Each key is written once.",
            "oneOf": [op("get", "KeyOp"), op("put", "PutOp"), op("delete", "KeyOp"), op("range", "RangeOp")],
        }),
    );
    for part in ["if", "then", "else"] {
        all["TxnRequest"]["properties"][part]["maxItems"] = TXN_OPS_MAX.into();
    }

    let ttl = duration_pattern(*TTL_MS.start(), *TTL_MS.end());
    all["GrantLease"]["properties"]["ttl"]["pattern"] = ttl.clone().into();
    let acquire = &mut all["AcquireLock"]["properties"];
    acquire["ttl"]["pattern"] = ttl.into();
    acquire["wait"]["pattern"] = duration_pattern(0, WAIT_MS_MAX).into();
    acquire["lease"]["minimum"] = 1.into();
    acquire["key"]["minLength"] = 1.into();
    acquire["key"]["maxLength"] = KEY_BYTES_MAX.into();
    all["AcquireLock"]["dependentRequired"] = json!({ "value": ["key"] });
    all["AcquireLock"]["not"] = json!({ "required": ["ttl", "lease"] });

    let add = &mut all["AddMember"]["properties"];
    add["id"]["pattern"] = ID.into();
    for address in ["peer_address", "client_address"] {
        add[address]["pattern"] = ADDRESS.into();
    }
    all["TransferLeadership"]["properties"]["to"]["pattern"] = ID.into();
}

const ID: &str = "^(?!0+$)[0-9a-fA-F]{1,16}$";
const ADDRESS: &str = "^[A-Za-z0-9._-]{1,200}:[1-9][0-9]{0,3}$";
/// Visible, and not JSON.
const CONTENT_TYPE: &str = "^(?! *(;|$|[aA]pplication/[jJ][sS][oO][nN] *(;|$)))[ -~]{1,255}$";
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// A pattern of durations from `least` to `most` milliseconds.
pub(super) fn duration_pattern(least_ms: u64, most_ms: u64) -> String {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)].map(|(unit, ms)| {
        let least = least_ms.div_ceil(ms);
        format!("({}){unit}", numbers(least, most_ms / ms).join("|"))
    });
    format!("^0*({})$", units.join("|"))
}

/// Patterns of the numbers from `least`, which is 0 or a power of ten, to `most`.
fn numbers(least: u64, most: u64) -> Vec<String> {
    let mut patterns = Vec::new();
    if least == 0 {
        patterns.push("0".to_owned());
        if most == 0 {
            return patterns;
        }
    }
    let digits = most.to_string();
    let fewest = least.max(1).to_string().len();
    if fewest < digits.len() {
        patterns.push(format!("[1-9][0-9]{{{},{}}}", fewest - 1, digits.len() - 2));
    }
    // As long as the greatest: equal to it up to a digit that is smaller, and anything from there on.
    for (at, digit) in digits.bytes().enumerate() {
        let lowest = if at == 0 { b'1' } else { b'0' };
        if digit > lowest {
            let (low, high) = (char::from(lowest), char::from(digit - 1));
            patterns.push(format!("{}[{low}-{high}][0-9]{{{}}}", &digits[..at], digits.len() - at - 1));
        }
    }
    patterns.push(digits);
    patterns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_numbers() {
        assert_eq!(numbers(0, 0), ["0"]);
        assert_eq!(numbers(0, 10), ["0", "[1-9][0-9]{0,0}", "10"]);
        assert_eq!(
            numbers(100, 8760),
            ["[1-9][0-9]{2,2}", "[1-7][0-9]{3}", "8[0-6][0-9]{2}", "87[0-5][0-9]{1}", "8760"]
        );
    }
}
