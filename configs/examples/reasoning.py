"""Problems of reasoning-gym (pip install reasoning-gym) as a task: docs/your-own.md."""

import reasoning_gym

made = {}


def problems(count, seed, dataset="chain_sum", **settings):
    made["data"] = reasoning_gym.create_dataset(dataset, size=count, seed=seed, **settings)
    return list(made["data"])


def grade(problems, answers):
    """reasoning-gym's own grader, on the answer that was read in the response."""
    score = made["data"].score_answer
    return [None if answer is None else score(answer, problem) for problem, answer in zip(problems, answers)]
