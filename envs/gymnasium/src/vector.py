"""Batches of Gymnasium environments: a registered vector environment, or a `Batch` of single ones."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from playfield_environments import INT32_MAX, Actions, Batch, has_own_vector, layout, mask_of, observations_of, short
from playfield_helper import find, refuse


def batch(name, size, arguments, process):
    """A batch of `size` environments. `process`: see `playfield_environments.one`."""
    if process[0] == "sync":
        target, spec = find(name)
        if has_own_vector(spec):
            return Vector(target, size, arguments)
    return Batch(name, size, arguments, process)


class Vector:
    """A registered vector environment, stepped as a whole, in any of Gymnasium's autoreset modes.

    SAME_STEP: as in a `Batch`. DISABLED: this class resets ended rows, by `reset(options={"reset_mask": ...})`. NEXT_STEP: the step
    after the end of an episode ignores the row's action and returns the first observation; it is marked as ignored.
    """

    def __init__(self, target, size, arguments):
        self.size, self.actions_sent = size, None
        self.env = gymnasium.make_vec(target, size, vectorization_mode="vector_entry_point", **arguments)
        try:
            self.mode = self.env.metadata.get("autoreset_mode")
            if not isinstance(self.mode, AutoresetMode):
                raise refuse(
                    f'the `metadata["autoreset_mode"]` of its vector environment is {short(self.mode)}: set it to an AutoresetMode of '
                    "gymnasium.vector"
                )
            self.has_ended = np.zeros(size, bool)  # with NEXT_STEP: the rows that start an episode in the next step
            self.observations = observations_of(self.env.single_observation_space, size)
            self.row = observations_of(self.env.single_observation_space)
            self.actions = Actions(self.env.single_action_space, size)
            self.seeds_rows = self.accepts_a_list_of_seeds()
            self.has_mask = bool(self.actions.sizes) and mask_of(self.env.reset(seed=0)[1]) is not None
        except BaseException:
            self.env.close()
            raise
        self.description = *layout(self.row), self.actions.description, [], self.has_mask

    def accepts_a_list_of_seeds(self):
        """Whether each row has its own seed: some vector environments accept only one for all rows."""
        try:
            self.env.reset(seed=list(range(self.size)))
            return True
        except Exception:
            return False

    def send(self, actions):
        self.actions_sent = self.actions.convert(actions)

    def step(self):
        """Checked rewards and flags as arrays, with observations and `info` as the environment returned them."""
        answer = self.env.step(self.actions_sent)
        if not isinstance(answer, (tuple, list)) or len(answer) != 5:
            raise refuse("its `step` did not return (observations, rewards, terminated, truncated, info)")
        observations, rewards, terminated, truncated, info = answer
        rewards = self.each("reward", rewards, "biuf").astype(np.float64)
        return observations, rewards, self.each("terminated", terminated, "b"), self.each("truncated", truncated, "b"), info

    def recv(self):
        """The results of a step: see `Batch.recv`."""
        observations, rewards, terminated, truncated, info = self.step()
        ignored, ended = self.has_ended, terminated | truncated
        if (ignored & ended).any():
            raise refuse(
                f"its episode ended in the step that starts it (row {np.flatnonzero(ignored & ended)[0]}), which AutoresetMode.NEXT_STEP "
                'rules out: correct `metadata["autoreset_mode"]`'
            )
        rewards = np.where(ignored, 0.0, rewards)
        if self.mode == AutoresetMode.SAME_STEP:
            finals = self.same_step_finals(info, terminated, ended)
            observations, lives, masks = self.observations.copy(observations), self.lives(info), self.row_masks(info)
        else:
            observations, lives, masks, finals = self.finals_and_starts(observations, info, terminated, ended)
        masks = b"".join(masks) if self.has_mask else None
        flags = terminated.tolist(), truncated.tolist()
        return observations, rewards.tolist(), *flags, lives, masks, finals, ignored.tolist() if ignored.any() else None

    def same_step_finals(self, info, terminated, ended):
        """Row, final observation and final mask of ended episodes, from `info`."""
        finals = []
        for row in np.flatnonzero(ended):
            final = info.get("final_obs") if isinstance(info, dict) else None
            if final is None or final[row] is None:
                raise refuse('an episode ended and `info` has no "final_obs"')
            mask = self.mask_row(info.get("final_info"), row) if self.has_mask and not terminated[row] else None
            finals.append((int(row), self.row.copy(final[row]), self.actions.mask(mask) if self.has_mask else None))
        return finals

    def finals_and_starts(self, observations, info, terminated, ended):
        """Observations, lives and masks of all rows, and the finals of ended episodes, where `step` returns final observations.

        DISABLED: ended rows start their next episode. NEXT_STEP: they start it in the next step; where all rows ended, that step would
        ignore every action, so it is taken at once.
        """
        observations, lives, masks = self.observations.copy(observations), self.lives(info), self.row_masks(info)
        finals = []
        for row in np.flatnonzero(ended):
            mask = self.actions.mask(None) if self.has_mask and terminated[row] else masks[row]
            finals.append((int(row), observations[row].copy(), mask))
        self.has_ended = ended if self.mode == AutoresetMode.NEXT_STEP and not ended.all() else np.zeros(self.size, bool)
        if self.has_ended.any():
            for row, *_ in finals:
                masks[row] = self.actions.mask(None) if self.has_mask else None  # any action: it is ignored
        elif finals:
            if self.mode == AutoresetMode.NEXT_STEP:
                first, *_, info = self.step()
            else:
                first, info = self.env.reset(options={"reset_mask": ended})
            first, first_lives, first_masks = self.observations.copy(first), self.lives(info), self.row_masks(info)
            for row, *_ in finals:
                observations[row], lives[row], masks[row] = first[row], first_lives[row], first_masks[row]
        return observations, lives, masks, finals

    def each(self, name, values, kinds):
        """Checks that there is one value for each environment."""
        array = np.asarray(values)
        if array.shape != (self.size,) or array.dtype.kind not in kinds:
            raise refuse(f"its `{name}` is {short(values)}, and must have one value for each of {self.size} environments")
        return array

    @staticmethod
    def mask_row(info, row):
        """`info["action_mask"][row]`, or None where `info["_action_mask"]` says that it is not valid."""
        masks = mask_of(info)
        valid = info.get("_action_mask") if masks is not None else None
        return None if masks is None or (valid is not None and not valid[row]) else masks[row]

    def row_masks(self, info):
        """The action mask of each environment as bytes, or None."""
        return [self.actions.mask(self.mask_row(info, row)) if self.has_mask else None for row in range(self.size)]

    def lives(self, info):
        """Integers in `info["lives"]`, of the environments where `info["_lives"]` is set."""
        lives = info.get("lives") if isinstance(info, dict) else None
        if not isinstance(lives, np.ndarray) or lives.shape != (self.size,) or lives.dtype.kind not in "iu":
            return [0] * self.size
        mask = info.get("_lives")
        mask = mask if isinstance(mask, np.ndarray) and mask.shape == (self.size,) else np.ones(self.size, bool)
        return [min(max(int(number), 0), INT32_MAX) if valid else 0 for number, valid in zip(lives, mask, strict=True)]

    def reset(self, seeds):
        """Observations, lives and action masks of new episodes."""
        self.has_ended = np.zeros(self.size, bool)
        observations, info = self.env.reset(seed=seeds if self.seeds_rows else seeds[0])
        masks = b"".join(self.row_masks(info)) if self.has_mask else None
        return self.observations.copy(observations), self.lives(info), masks

    def close(self):
        self.env.close()
