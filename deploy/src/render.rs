//! `render`: the chart's objects without helm.
//!
//! There is one source, the chart. `deploy/rendered/` holds what helm makes of it with placeholders for what differs from
//! one installation to another, one file for each size at founding; a test renders the chart again, where helm is at hand,
//! and fails if a file differs. What is done here is to put words in the place of placeholders.

use crate::{Failure, Outcome};
use serde::Deserialize;
use serde_json::Value;

/// What may be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// How many nodes found the cluster: 1, 3 or 5. It may be scaled to any other number afterwards
    #[arg(long, default_value_t = 3)]
    pub size: u32,
    /// The node's image
    #[arg(long, default_value = "balsa:dev")]
    pub image: String,
    /// The size of each node's volume
    #[arg(long, default_value = "8Gi")]
    pub storage: String,
}

/// What stands in the rendered files for an installation's own words.
pub const PLACEHOLDERS: [(&str, &str); 5] = [
    ("name", "balsa-placeholder-name"),
    ("namespace", "balsa-ns-placeholder"),
    ("repository", "balsa.placeholder/image"),
    ("tag", "placeholder-tag"),
    ("storage", "987654321Mi"),
];

const RENDERED: [(u32, &str); 3] = [
    (1, include_str!("../rendered/1.yaml")),
    (3, include_str!("../rendered/3.yaml")),
    (5, include_str!("../rendered/5.yaml")),
];

/// The objects as YAML.
pub fn render(args: &Args, name: &str, namespace: Option<&str>) -> Outcome<String> {
    let Some((_, text)) = RENDERED.iter().find(|(size, _)| *size == args.size) else {
        return Err(Failure(format!(
            "size is {}: it takes 1, 3 or 5; scale to another number afterwards",
            args.size
        )));
    };
    let (repository, tag) = args
        .image
        .rsplit_once(':')
        .filter(|(_, tag)| !tag.contains('/'))
        .ok_or_else(|| Failure(format!("image is {}: it takes REPOSITORY:TAG", args.image)))?;
    for (what, value) in [("name", name), ("namespace", namespace.unwrap_or("default"))] {
        if !is_label(value) {
            return Err(Failure(format!(
                "{what} is {value}: it takes lower-case letters, digits and dashes"
            )));
        }
    }
    let fits = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._/:@".contains(&b));
    if !fits(&args.image) || !fits(&args.storage) {
        return Err(Failure(format!(
            "image is {}, storage is {}: one of them is no such thing",
            args.image, args.storage
        )));
    }
    let words = [name, namespace.unwrap_or("default"), repository, tag, &args.storage];
    let filled = PLACEHOLDERS.iter().zip(words);
    let text =
        filled.fold((*text).to_owned(), |text, ((_, placeholder), word)| text.replace(placeholder, word));
    let objects = read(&text)?.into_iter().map(as_our_own);
    let documents: Result<Vec<String>, _> = objects.map(|object| serde_yaml::to_string(&object)).collect();
    Ok(documents.map_err(|error| Failure(error.to_string()))?.join("---\n"))
}

/// The objects of a rendered chart.
pub fn read(text: &str) -> Outcome<Vec<Value>> {
    let documents = serde_yaml::Deserializer::from_str(text).map(Value::deserialize);
    let objects: Result<Vec<Value>, _> = documents.collect();
    let objects =
        objects.map_err(|error| Failure(format!("the rendered chart is not understood: {error}")))?;
    Ok(objects.into_iter().filter(|object| !object.is_null()).collect())
}

/// Without the labels by which helm knows its own.
fn as_our_own(mut object: Value) -> Value {
    for labels in ["/metadata/labels", "/spec/template/metadata/labels"] {
        if let Some(labels) = object.pointer_mut(labels).and_then(Value::as_object_mut) {
            labels.remove("helm.sh/chart");
            labels.insert("app.kubernetes.io/managed-by".to_owned(), "balsa-deploy".into());
        }
    }
    object
}

fn is_label(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=40).contains(&text.len()) && text.bytes().all(fits) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(size: u32) -> Args {
        Args { size, image: "registry:5000/kv:2".into(), storage: "3Gi".into() }
    }

    fn find<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
        objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
    }

    #[test]
    fn words_take_the_place_of_placeholders() {
        for size in [1, 3, 5] {
            let text = render(&args(size), "kv-store", Some("ns")).unwrap();
            for (what, placeholder) in PLACEHOLDERS {
                assert!(!text.contains(placeholder), "{what} is still {placeholder}");
            }
            let objects = read(&text).unwrap();
            let set = find(&objects, "StatefulSet");
            assert_eq!(set["metadata"]["name"], "kv-store");
            assert_eq!(set["metadata"]["namespace"], "ns");
            assert_eq!(set["metadata"]["labels"]["app.kubernetes.io/managed-by"], "balsa-deploy");
            assert_eq!(set["spec"]["replicas"], size);
            let container = &set["spec"]["template"]["spec"]["containers"][0];
            assert_eq!(container["image"], "registry:5000/kv:2");
            let storage = &set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
            assert_eq!(storage, "3Gi");
            let mark = find(&objects, "ConfigMap");
            assert_eq!(mark["metadata"]["name"], "kv-store-founding");
            assert!(mark["data"].is_null(), "the nodes write it");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (args, name, words) in [
            (args(2), "kv", "size is 2"),
            (Args { image: "kv".into(), ..args(3) }, "kv", "REPOSITORY:TAG"),
            (Args { image: "registry:5000/kv".into(), ..args(3) }, "kv", "REPOSITORY:TAG"),
            (Args { storage: "1 Gi\nkind: Pod".into(), ..args(3) }, "kv", "no such thing"),
            (args(3), "K v", "name is K v"),
        ] {
            let Failure(why) = render(&args, name, None).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }
}
