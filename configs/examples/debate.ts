// A workflow of a user's own: two debaters answer, each reads the other's text, both answer again, a judge picks.
import type { Workflow } from 'troupe';

const debate: Workflow = {
  name: 'debate',
  roles: ['debater', 'judge'],
  async run({ problem, call, claim, unread }) {
    const ask = (content: string) => [{ role: 'user' as const, content }];
    const round = (turn: number, prompts: string[]) =>
      Promise.all(prompts.map((prompt, slot) => call('debater', ask(prompt), { slot, turn })));

    const first = await round(0, [problem.question, problem.question]);
    const second = await round(
      1,
      first.map((_, i) => `${problem.question}\nSomebody else says: ${first[1 - i]?.text}\nWhat do you say?`),
    );
    for (const reply of [...first, ...second]) claim(reply.call, reply.text);

    const texts = second.map((reply, i) => `${i + 1}: ${reply.text}`).join('\n');
    const verdict = await call('judge', ask(`${problem.question}\n${texts}\nWho is right, 1 or 2?`));
    const picked = verdict.text.match(/[12]/)?.[0];
    if (picked === undefined) unread(verdict.call);
    return { answer: second[Number(picked ?? 1) - 1]?.text ?? '' };
  },
};

export default debate;
