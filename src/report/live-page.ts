/** What `troupe watch` runs in the browser: it takes the new content when the server says that there is some. */
export const SCRIPT = `
const main = document.querySelector('main');
const key = (details) =>
  (details.closest('[id]')?.id ?? '') + '/' + details.querySelector('summary').textContent;
let pending = false;
let busy = false;

async function refresh() {
  pending = true;
  if (busy || document.hidden) return;
  busy = true;
  try {
    while (pending) {
      pending = false;
      const answer = await fetch('/content');
      if (!answer.ok) break;
      const text = await answer.text();
      const opened = new Map([...main.querySelectorAll('details')].map((one) => [key(one), one.open]));
      main.innerHTML = text;
      for (const one of main.querySelectorAll('details')) {
        if (opened.has(key(one))) one.open = opened.get(key(one));
      }
    }
  } finally {
    busy = false;
  }
}

const events = new EventSource('/events');
events.addEventListener('change', refresh);
// After a break in the connection, what came meanwhile is fetched too.
events.addEventListener('open', refresh);
document.addEventListener('visibilitychange', () => pending && refresh());
`;
