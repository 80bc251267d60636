// coralmux-agent, which says what it is asked.
import { execFileSync } from 'node:child_process';
import { Program } from './program.mjs';
import { ROOT, binary } from './relay.mjs';

// `state`: the file with its pairing.
export function echoing(relay, token, state, ...flags) {
  const all = ['--relay', relay.url, '--token', token, '--state', state, '--echo', '--qr', 'none', ...flags];
  return new Program(binary('coralmux-agent'), all, { cwd: ROOT });
}

// The link for browsers, as soon as the agent has kept its pairing.
export async function linkOf(agent, relay, state) {
  await agent.says(/are kept in/);
  const shown = execFileSync(binary('coralmux-agent'), ['link', '--relay', relay.url, '--state', state, '--qr', 'none'], { encoding: 'utf8' });
  return shown.match(/http:\/\/127\.0\.0\.1:\d+\/#token=\S+&k=[\w-]{43}/)[0];
}
