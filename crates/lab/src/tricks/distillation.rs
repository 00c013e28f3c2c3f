//! Trick 4: distillation from a teacher in addition to the labels.

use crate::{Better, Trial, Trick};
use playfield_core::Result;
use playfield_nn::config::{Activation, InitKind};
use playfield_tricks::classifier::{Classifier, Config, Start, train};
use playfield_tricks::data::{Dataset, digits};
use playfield_tricks::distill::Distillation;
use playfield_tricks::loader::{Loader, Shuffle};

const HARD: &str = "labels";
const MIXED: &str = "labels and teacher, T = 4";

/// The trick and its experiment.
pub const TRICK: Trick = Trick {
    number: 4,
    name: "distillation",
    about: "a small network is trained on the softened outputs of a large one in addition to the labels",
    source: "Hinton, Vinyals and Dean 2015",
    data: "digits (toy): a teacher (two layers of 128) trained on 1078 of them, a student (one layer of 16) trained on 120",
    verified_by: "crates/tricks/src/distill.rs: equals_kl_div_of_pytorch; crates/tricks/src/distill.rs: the_gradient_tends_to_a_constant_as_the_temperature_grows",
    metric: "test error of the student after 1500 steps, %",
    better: Better::Lower,
    baseline: HARD,
    with: &[MIXED],
    timed: false,
    run,
};

const STEPS: u64 = 1500;

fn config(hidden: Vec<i64>) -> Config {
    Config { hidden, activation: Activation::Relu, init: Start::Rule(InitKind::He), ..Config::default() }
}

fn run(trial: &mut Trial) -> Result<()> {
    let (data, test) = digits().split(0.4, &mut trial.rng("split"))?;
    let teacher = train(&config(vec![128, 128]), &data, trial.seed(), |p| p.steps >= 1000)?;
    let (few, _) = data.split(1.0 - 120.0 / data.len() as f64, &mut trial.rng("few"))?;
    trial.axes("step", "error on the test set, %");
    trial.record("the teacher", 100.0 * (1.0 - teacher.accuracy(&test)));
    for (variant, temperature, weight, seen) in [
        (HARD, 1.0, 0.0, &few),
        (MIXED, 4.0, 0.9, &few),
        ("labels and teacher, T = 1", 1.0, 0.9, &few),
        ("labels and teacher, T = 10", 10.0, 0.9, &few),
        ("teacher alone, T = 4, all images", 4.0, 1.0, &data),
    ] {
        let mix = Distillation::new(temperature, weight)?;
        let error = student(trial, variant, &teacher, mix, (seen, &test))?;
        trial.record(variant, error);
    }
    Ok(())
}

fn student(
    trial: &mut Trial,
    variant: &str,
    teacher: &Classifier,
    mix: Distillation,
    (data, test): (&Dataset, &Dataset),
) -> Result<f64> {
    let config = config(vec![16]);
    let mut student = Classifier::new(&config, data.features, data.classes, trial.seed())?;
    let mut loader = Loader::new(data.len(), config.batch_size, Shuffle::Thorough, trial.rng("loader"))?;
    let mut steps = 0;
    while steps < STEPS {
        for rows in loader.epoch() {
            let (x, labels) = data.select(&rows).tensors();
            let said = teacher.logits(&x);
            student.step_by(&x, config.learning_rate, |logits| mix.loss(logits, &said, &labels));
            steps += 1;
            if steps % 100 == 0 {
                trial.point(variant, steps as f64, 100.0 * (1.0 - student.accuracy(test)));
            }
        }
    }
    Ok(100.0 * (1.0 - student.accuracy(test)))
}
