# All that a fresh machine needs: `make train`, `make test`.
DEVICE ?= cpu
CONFIG ?= configs/ppo/pong-fast.toml
ARGS   ?=
DENY   := 0.20.2
MUTANTS := 27.1.0
FUZZ   := 0.13.2
PACKAGE ?= playfield-losses

.PHONY: help setup build train test lint example model browser bench faults fuzz soak mutants audit clean
help:
	@echo "make train [CONFIG=configs/ppo/pong-fast.toml] [ARGS='--seed 2']   build, train, record a video"
	@echo "make test                                                     everything that CI runs"
	@echo "make setup [DEVICE=cuda]                                      libtorch and Python, pinned, into this folder"
	@echo "make browser                                                  Chromium for two of the tests (as root, Debian)"
	@echo "make bench                                                    benchmarks on this machine"
	@echo "make faults                                                   the fault campaign: less than an hour; docs/reliability.md"
	@echo "make fuzz [TARGET=config] [SECONDS=3600]                        inputs that make a parser of files panic"
	@echo "make soak [SECONDS=3600] [FRAMES=10000]                        memory, descriptors and threads of long trainings"
	@echo "make mutants [PACKAGE=playfield-losses]                       mutations of the code that no test catches (slow)"
	@echo "make audit                                                    known vulnerabilities (needs github.com)"

setup:
	@scripts/setup $(DEVICE)

build: setup
	cargo build --release --locked

train: build
	target/release/playfield train $(CONFIG) --gif $(ARGS)

# Compiled first, while the build of libtorch's C++ binding leaves a core to other crates; clippy then finds it built.
test: setup
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements-test.txt
	cargo fmt --all --check
	cargo test --workspace --locked --no-run
	$(MAKE) lint example model
	cargo test --workspace --locked

lint: setup
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --locked --no-default-features -- -D warnings

# An example of a user's crate, built outside the workspace. With the same folder and the same paths, as text, it shares the third-party
# crates.
example: setup
	cd envs/examples/rust && LIBTORCH=$(CURDIR)/.libtorch PYO3_PYTHON=$(CURDIR)/.venv/bin/python \
	cargo test --locked --target-dir $(CURDIR)/target

# Every interleaving of the threads that share parameters.
model:
	RUSTFLAGS="--cfg loom" cargo test -p playfield-hogwild --release --locked --target-dir target/loom

# Two tests open a report and TensorBoard in a headless Chromium (`CHROME` names another); without one they print that they are
# skipped. Its Debian package, as root:
browser:
	apt-get install --yes --no-install-recommends chromium

bench: build
	benches/bench.py

# Killed processes, full disks, damaged files, extreme settings, signals, failing environments; prints a table. FAULTS=signal selects
# classes by a part of their name.
faults: setup
	cargo test --locked --test faults -- --ignored --nocapture

# Coverage-guided fuzzing of a parser of files, with libFuzzer: config, manifest, safetensors, state, segment or csv. What is found is
# written to target/fuzz/found.
TARGET ?= config
fuzz: .tools/bin/cargo-fuzz
	@test -d tests/fuzz/seeds/$(TARGET) || { echo "TARGET=$(TARGET) is unknown: use one of" $$(ls tests/fuzz/seeds) >&2; exit 2; }
	mkdir -p target/fuzz/found target/fuzz/corpus/$(TARGET)
	PATH="$(CURDIR)/.tools/bin:$$PATH" cargo fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none --dev $(TARGET) \
	target/fuzz/corpus/$(TARGET) tests/fuzz/seeds/$(TARGET) -- -max_total_time=$(or $(SECONDS),3600) -rss_limit_mb=2048 \
	-artifact_prefix=target/fuzz/found/$(TARGET)- -print_final_stats=1

# Four trainings on Pong, side by side: fails if one of them grows, or needs longer than two seconds to save.
soak: build
	scripts/soak $(or $(SECONDS),3600) $(FRAMES)

# Mutation testing of a package with cargo-mutants, by the package's tests and the whole program's training tests
# (WHOLE= for the package's only). Surviving mutants are listed in target/mutants.out/missed.txt.
WHOLE ?= --test-package playfield
mutants: setup .tools/bin/cargo-mutants
	LIBTORCH=$(CURDIR)/.libtorch LD_LIBRARY_PATH=$(CURDIR)/.libtorch/lib PYO3_PYTHON=$(CURDIR)/.venv/bin/python \
	.tools/bin/cargo-mutants mutants --package $(PACKAGE) --test-package $(PACKAGE) $(WHOLE) --output target

audit: .tools/bin/cargo-deny
	.tools/bin/cargo-deny check advisories

.tools/bin/cargo-deny:
	cargo install --quiet --locked --debug --root .tools cargo-deny@$(DENY)

.tools/bin/cargo-fuzz:
	cargo install --quiet --locked --root .tools cargo-fuzz@$(FUZZ)

.tools/bin/cargo-mutants:
	cargo install --quiet --locked --root .tools cargo-mutants@$(MUTANTS)

clean:
	rm -rf target .tools envs/examples/rust/target
