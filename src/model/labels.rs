//! Label selectors, as Kubernetes has them.

use std::collections::{BTreeMap, BTreeSet};

/// Labels of an object.
pub type Labels = BTreeMap<String, String>;

/// Demands on labels; who meets all of them is selected, so that an empty selector selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    pub equal: Labels,
    pub demands: Vec<Demand>,
}

/// A demand on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    pub key: String,
    pub values: Values,
}

/// What a label may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    In(Vec<String>),
    /// Also met without the label.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// Whether labels meet all demands.
    pub fn selects(&self, labels: &Labels) -> bool {
        bears(labels, &self.equal) && self.demands.iter().all(|demand| demand.met_by(labels))
    }

    /// A label, and the values of which it must have one; `None` when no value is demanded of any label.
    pub fn values(&self) -> Option<(&str, BTreeSet<&str>)> {
        let equal = self.equal.first_key_value().map(|(key, value)| (key.as_str(), BTreeSet::from([value.as_str()])));
        equal.or_else(|| self.demands.iter().find_map(Demand::values))
    }
}

impl Demand {
    fn values(&self) -> Option<(&str, BTreeSet<&str>)> {
        let Values::In(values) = &self.values else { return None };
        Some((&self.key, values.iter().map(String::as_str).collect()))
    }

    /// Whether labels meet it.
    pub fn met_by(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.values {
            Values::In(values) => value.is_some_and(|v| values.contains(v)),
            Values::NotIn(values) => value.is_none_or(|v| !values.contains(v)),
            Values::Exists => value.is_some(),
            Values::DoesNotExist => value.is_none(),
        }
    }
}

/// Whether `labels` has all of `wanted`.
pub fn bears(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(values: Values) -> LabelSelector {
        LabelSelector { equal: Labels::new(), demands: vec![Demand { key: "tier".to_owned(), values }] }
    }

    #[test]
    fn each_operator_means_what_a_deployment_s_selector_means_by_it() {
        let web = Labels::from([("tier".to_owned(), "web".to_owned())]);
        let none = Labels::new();
        let list = |value: &str| vec![value.to_owned()];
        for (values, with, without) in [
            (Values::In(list("web")), true, false),
            (Values::In(list("db")), false, false),
            (Values::NotIn(list("web")), false, true),
            (Values::NotIn(list("db")), true, true),
            (Values::Exists, true, false),
            (Values::DoesNotExist, false, true),
        ] {
            let selector = selector(values);
            assert_eq!((selector.selects(&web), selector.selects(&none)), (with, without), "{selector:?}");
        }
        assert!(LabelSelector::default().selects(&none), "an empty selector selects everything");
    }
}
