/** Types of tasks: where problems come from and how answers are graded. */

/** One problem. `fields` are what prompt templates may name. */
export interface Problem {
  /** Stable across runs, e.g. "arithmetic:train:17" or "gsm8k-train.jsonl:12". */
  id: string;
  /** The question as the roles read it. */
  question: string;
  /** The right answer for graders that compare; code problems carry tests in `data` instead. */
  answer?: string;
  /** The task's own data, e.g. tests of a code problem. */
  data?: Record<string, unknown>;
  /** The row of the data file that it was made of, for reward functions; large tests of code problems left out. */
  columns?: Record<string, unknown>;
}

/** A verdict on an answer. */
export interface Grade {
  correct: boolean;
  /** 0 to 1; 1 if correct unless the task grades in parts. */
  reward: number;
  /** One of a few words a task documents, e.g. "correct", "wrong", "no-answer", "timeout". */
  reason: string;
}

/** Which rows of the data files a run holds out, as its split.json keeps it. */
export interface SplitRecord {
  files: { file: string; sha256: string }[];
  /** The files of the evaluation where it has its own. */
  evaluationFiles?: { file: string; sha256: string }[];
  /** Rows of all files together, those that cannot be used included. */
  rows: number;
  /** Numbers of the held-out rows among them, from 0, in the order of the evaluation; empty with files of their own. */
  heldOut: number[];
  /** SHA-256 of the held-out questions, in hexadecimal: equal where the same problems are evaluated. */
  questions: string;
}

/** Where problems come from and how answers are graded. A user's file exports what makes one (`TaskModule`). */
export interface Task {
  name: string;
  /** Which prompt templates fit: "math" or "code". */
  kind: 'math' | 'code';
  /** Training problem `index` of a run with this seed: a fixed order, endless (data sets repeat, reshuffled). */
  train(seed: number, index: number): Problem;
  /** Problems that training never sees, a fixed list; at most `count` of them. */
  evaluation(count: number): Problem[];
  /** Grades answers together, so that a sandbox can run several at once. Never throws for a hostile answer. */
  grade(answers: readonly { problem: Problem; text: string }[]): Promise<Grade[]>;
  /** A wrong answer to the problem, for supervised data; without it, a number near the right one. */
  wrongAnswer?(problem: Problem, random: () => number): string;
  /** The short text that stands for the answer (a number, a program), or undefined. For voting and templates. */
  extract(text: string): string | undefined;
  /** What was held out of data files; tasks that make their problems have none. */
  split?(): Promise<SplitRecord>;
  /** Frees processes. */
  close(): Promise<void>;
}

/** What a task is made with, besides its settings. */
export interface TaskContext {
  /** A malformed data row is an error instead of being skipped. */
  strict: boolean;
  /** Is told what was skipped, in one line. */
  warn: (message: string) => void;
}
