//! The results of the experiments as a Markdown page: one section per trick, with its chart.

use crate::{Better, Outcome, Trick};
use playfield_report::format::number;
use std::fmt::Write as _;

/// How the outcomes of a page were measured.
pub struct Circumstances<'a> {
    /// The command.
    pub command: &'a str,
    /// The date, as `2026-01-31`.
    pub date: &'a str,
    /// The machine: cores, processor.
    pub machine: &'a str,
}

/// The page of `outcomes`. Their charts are in the folder `images`, relative to the page.
pub fn page(outcomes: &[(&Trick, Outcome)], images: &str, at: &Circumstances<'_>) -> String {
    let mut page = String::from(
        "# What each trick does, measured\n\n\
         Every trick of the core, with the test that verifies its definition and an experiment that trains with it and without \
         it. The experiments are small, most of them on toy data: they show whether an effect exists, not how large it is \
         elsewhere. Experiments without an effect are reported, too.\n\n",
    );
    let Circumstances { command, date, machine } = at;
    let minutes = outcomes.iter().map(|(_, o)| o.seconds).sum::<f64>() / 60.0;
    let _ = writeln!(page, "Measured {date} on {machine} by `{command}`, {minutes:.0} minutes in total.\n");
    page.push_str(
        "A dot is a seed, a bar the median. A verdict compares a variant with the baseline by the exact two-sided Mann-Whitney \
         test at the 5 % level, without correction for multiple comparisons; `p` is the probability of a difference at least as \
         large by chance.\n\n\
         | # | trick | variant | verdict |\n|---|---|---|---|\n",
    );
    for (trick, outcome) in outcomes {
        for variant in &outcome.variants {
            if let Some((verdict, p)) = variant.verdict {
                let Trick { number, name, .. } = trick;
                let _ = writeln!(page, "| {number} | [{name}](#{name}) | {} | {verdict} (p = {p:.3}) |", variant.name);
            }
        }
    }
    for (trick, outcome) in outcomes {
        page.push_str(&section(trick, outcome, images));
    }
    page
}

fn section(trick: &Trick, outcome: &Outcome, images: &str) -> String {
    let Trick { number: index, name, about, source, data, verified_by, .. } = trick;
    let better = if outcome.better == Better::Lower { "lower" } else { "higher" };
    let mut text = format!(
        "\n## {name}\n\nTrick {index}: {about}.\n\n- Source: {source}\n- Measured on: {data}\n- Verified by: \
         `{verified_by}`\n- Reproduce with: `playfield trick run {name} --seeds {}` ({:.0} s)\n\n\
         ![{name}]({images}/{name}.svg)\n\n| {} ({better} is better) | median | quartiles | verdict |\n|---|---|---|---|\n",
        outcome.seeds, outcome.seconds, outcome.metric
    );
    for (i, variant) in outcome.variants.iter().enumerate() {
        let verdict = match (i, variant.verdict) {
            (0, _) => "baseline".into(),
            (_, Some((verdict, p))) => format!("{verdict} (p = {p:.3})"),
            (_, None) => "not tested".into(),
        };
        let (low, high) = variant.quartiles;
        let [median, low, high] = [variant.median, low, high].map(number);
        let _ = writeln!(text, "| {} | {median} | {low} to {high} | {verdict} |", variant.name);
    }
    text
}
