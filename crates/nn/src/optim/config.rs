//! The optimizer section of a configuration: `optimizer = { rule = "adam", eps = 1e-5 }`.

use super::adam::Adam;
use super::adamw::AdamW;
use super::radam::RAdam;
use super::rmsprop::RmsProp;
use super::rule::UpdateRule;
use super::sgd::Sgd;
use playfield_core::Result;
use playfield_core::algorithm::{check_shares, check_sizes};
use serde::{Deserialize, Serialize};

/// An optimizer's rule and its settings. A key of another rule is an error.
///
/// There is no default: each algorithm has its own, and each rule its published ones ([`of`](Self::of)). [`with_rule`](Self::with_rule)
/// decides which of the two a partial section completes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase")]
pub enum OptimizerConfig {
    /// Stochastic gradient descent with momentum.
    Sgd(Sgd),
    /// RMSProp, centered or not.
    RmsProp(RmsProp),
    /// Adam.
    Adam(Adam),
    /// Adam with decoupled weight decay.
    AdamW(AdamW),
    /// Rectified Adam.
    RAdam(RAdam),
}

/// The name of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rule {
    /// [`Sgd`].
    Sgd,
    /// [`RmsProp`].
    RmsProp,
    /// [`Adam`].
    Adam,
    /// [`AdamW`].
    AdamW,
    /// [`RAdam`].
    RAdam,
}

impl OptimizerConfig {
    /// The published settings of `rule`.
    pub fn of(rule: Rule) -> Self {
        match rule {
            Rule::Sgd => Sgd::default().into(),
            Rule::RmsProp => RmsProp::default().into(),
            Rule::Adam => Adam::default().into(),
            Rule::AdamW => AdamW::default().into(),
            Rule::RAdam => RAdam::default().into(),
        }
    }

    /// The rule's name.
    pub fn name(&self) -> Rule {
        match self {
            Self::Sgd(_) => Rule::Sgd,
            Self::RmsProp(_) => Rule::RmsProp,
            Self::Adam(_) => Rule::Adam,
            Self::AdamW(_) => Rule::AdamW,
            Self::RAdam(_) => Rule::RAdam,
        }
    }

    /// The defaults of an algorithm, `self`, for a configuration that chooses the rule of `chosen`: another rule has its published
    /// settings.
    #[must_use]
    pub fn with_rule(self, chosen: &Self) -> Self {
        if chosen.name() == self.name() { self } else { Self::of(chosen.name()) }
    }

    /// Refuses values that cannot work, in the section called `section`.
    ///
    /// # Errors
    /// [`Error::Config`](playfield_core::Error::Config) naming the key and its bounds.
    pub fn check(&self, section: &str) -> Result<()> {
        check_shares(section, &self.rule().shares())?;
        check_sizes(section, &self.rule().sizes())
    }

    /// The initial value of each part of the state; the second only where the rule has one.
    pub fn initial_statistics(&self) -> (f32, Option<f32>) {
        let [first, second] = self.rule().state().map(|state| state.map(|state| state.initial));
        (first.unwrap_or_default(), second)
    }

    /// The coefficient λ of weight decay.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Self::Sgd(rule) => rule.weight_decay,
            Self::RmsProp(rule) => rule.weight_decay,
            Self::Adam(rule) => rule.weight_decay,
            Self::AdamW(rule) => rule.weight_decay,
            Self::RAdam(rule) => rule.weight_decay,
        }
    }

    /// The same settings with another coefficient of weight decay.
    pub fn with_weight_decay(mut self, weight_decay: f64) -> Self {
        match &mut self {
            Self::Sgd(rule) => rule.weight_decay = weight_decay,
            Self::RmsProp(rule) => rule.weight_decay = weight_decay,
            Self::Adam(rule) => rule.weight_decay = weight_decay,
            Self::AdamW(rule) => rule.weight_decay = weight_decay,
            Self::RAdam(rule) => rule.weight_decay = weight_decay,
        }
        self
    }

    pub(super) fn rule(&self) -> &dyn UpdateRule {
        match self {
            Self::Sgd(rule) => rule,
            Self::RmsProp(rule) => rule,
            Self::Adam(rule) => rule,
            Self::AdamW(rule) => rule,
            Self::RAdam(rule) => rule,
        }
    }
}

macro_rules! convert {
    ($($rule:ident)*) => {
        $(impl From<$rule> for OptimizerConfig {
            fn from(rule: $rule) -> Self {
                Self::$rule(rule)
            }
        })*
    };
}

convert!(Sgd RmsProp Adam AdamW RAdam);

#[cfg(test)]
mod tests {
    use super::*;
    use playfield_core::algorithm::parse_section_over;

    const RULES: [Rule; 5] = [Rule::Sgd, Rule::RmsProp, Rule::Adam, Rule::AdamW, Rule::RAdam];

    #[derive(Debug, Serialize, Deserialize)]
    struct Section {
        optimizer: OptimizerConfig,
    }

    /// The section `text` of an algorithm whose own settings are `own`.
    fn parse(own: &OptimizerConfig, text: &str) -> Result<OptimizerConfig> {
        let table = text.parse().unwrap();
        let section = |optimizer: &OptimizerConfig| Section { optimizer: optimizer.clone() };
        let chosen = parse_section_over("paac", &table, &section(own))?.optimizer;
        parse_section_over("paac", &table, &section(&own.clone().with_rule(&chosen))).map(|s| s.optimizer)
    }

    /// Another rule has its published settings; keys of the same rule leave the algorithm's other settings.
    #[test]
    fn a_partial_section_completes_its_rule() {
        let own: OptimizerConfig = RmsProp { centered: true, decay: 0.95, eps: 0.01, ..RmsProp::tensorflow() }.into();
        assert_eq!(parse(&own, "").unwrap(), own);
        assert_eq!(parse(&own, "optimizer = { rule = 'rmsprop' }").unwrap(), own);
        let decayed = own.clone().with_weight_decay(1e-5);
        assert_eq!(parse(&own, "optimizer = { weight_decay = 1e-5 }").unwrap(), decayed);
        let adam = parse(&own, "optimizer = { rule = 'adam', weight_decay = 1e-5 }").unwrap();
        assert_eq!(adam, Adam { weight_decay: 1e-5, ..Adam::default() }.into());
        for rule in RULES {
            let name = toml::Value::try_from(rule).unwrap();
            assert_eq!(parse(&own, &format!("optimizer = {{ rule = {name} }}")).unwrap().name(), rule);
            let written = toml::Table::try_from(OptimizerConfig::of(rule)).unwrap();
            assert_eq!(written["rule"], name);
            assert_eq!(written.try_into::<OptimizerConfig>().unwrap(), OptimizerConfig::of(rule));
        }
    }

    /// The error names the keys that the rule has.
    #[test]
    fn a_key_of_another_rule_is_an_error() {
        let own = OptimizerConfig::of(Rule::RmsProp);
        for (text, wrong, keys) in [
            ("optimizer = { beta1 = 0.5 }", "beta1", ["decay", "centered", "eps_inside_root"]),
            ("optimizer = { rule = 'adam', centered = true }", "centered", ["beta1", "beta2", "eps"]),
            ("optimizer = { rule = 'sgd', eps = 1e-5 }", "eps", ["momentum", "weight_decay", "unknown field"]),
        ] {
            let error = parse(&own, text).unwrap_err().to_string();
            assert!(error.contains(&format!("`{wrong}`")) && keys.iter().all(|key| error.contains(key)), "{error}");
        }
    }

    #[test]
    fn values_that_cannot_work_are_named() {
        let configs: [(OptimizerConfig, &str); 4] = [
            (Adam { beta2: 1.5, ..Adam::default() }.into(), "`optimizer.beta2` = 1.5"),
            (RmsProp { decay: -0.1, ..RmsProp::default() }.into(), "`optimizer.decay` = -0.1"),
            (Sgd { momentum: f64::NAN, ..Sgd::default() }.into(), "`optimizer.momentum` = NaN"),
            (AdamW { weight_decay: -1.0, ..AdamW::default() }.into(), "`optimizer.weight_decay` = -1"),
        ];
        for (config, expected) in configs {
            let error = config.check("dqn").unwrap_err().to_string();
            assert!(error.contains("[dqn]") && error.contains(expected), "{error}");
        }
    }
}
