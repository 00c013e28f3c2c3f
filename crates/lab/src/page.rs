//! What the lab found, as a page: Markdown, a section for each trick, the pictures beside it.

use crate::chart::number;
use crate::{Better, Outcome, Trick};
use std::fmt::Write as _;

/// Where and how the outcomes of a page came about.
pub struct Circumstances<'a> {
    /// What was typed.
    pub command: &'a str,
    /// When, as `2026-01-31`.
    pub date: &'a str,
    /// On what: cores, processor.
    pub machine: &'a str,
}

/// The page of `outcomes`, whose pictures lie in the folder `pictures` beside it.
pub fn page(outcomes: &[(&Trick, Outcome)], pictures: &str, at: &Circumstances<'_>) -> String {
    let mut page = String::from(
        "# What each trick does, measured\n\n\
         Every trick of the core, with the test that holds it to its definition and an experiment that trains with it and \
         without. The experiments are small, most of them on toy data: they show whether an effect is there, not how large it \
         is elsewhere. Where none is seen, that is what is said.\n\n",
    );
    let Circumstances { command, date, machine } = at;
    let minutes = outcomes.iter().map(|(_, o)| o.seconds).sum::<f64>() / 60.0;
    let _ = writeln!(page, "Measured {date} on {machine} by `{command}`, {minutes:.0} minutes in all.\n");
    page.push_str(
        "A dot is a seed, a bar the median. A verdict compares a variant with the baseline by the exact two-sided Mann-Whitney \
         test at the level of 5 %, each comparison by itself; `p` is what chance alone would do.\n\n\
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
        page.push_str(&section(trick, outcome, pictures));
    }
    page
}

fn section(trick: &Trick, outcome: &Outcome, pictures: &str) -> String {
    let Trick { number: place, name, about, source, data, held_by, .. } = trick;
    let better = if outcome.better == Better::Lower { "lower" } else { "higher" };
    let mut text = format!(
        "\n## {name}\n\nTrick {place}: {about}.\n\n- Source: {source}\n- Measured on: {data}\n- Held to its definition by: \
         `{held_by}`\n- Again: `playfield trick run {name} --seeds {}` ({:.0} s)\n\n\
         ![{name}]({pictures}/{name}.svg)\n\n| {} ({better} is better) | median | quartiles | verdict |\n|---|---|---|---|\n",
        outcome.seeds, outcome.seconds, outcome.metric
    );
    for (i, variant) in outcome.variants.iter().enumerate() {
        let verdict = match (i, variant.verdict) {
            (0, _) => "baseline".into(),
            (_, Some((verdict, p))) => format!("{verdict} (p = {p:.3})"),
            (_, None) => "shown, not judged".into(),
        };
        let (low, high) = variant.quartiles;
        let [median, low, high] = [variant.median, low, high].map(number);
        let _ = writeln!(text, "| {} | {median} | {low} to {high} | {verdict} |", variant.name);
    }
    text
}
