// The push service of the tests (../push_service.py): for the relay, which trusts its certificate, and for Firefox.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Program } from './program.mjs';
import { ROOT } from './relay.mjs';

export class PushService {
  static async start() {
    const service = new PushService();
    service.directory = mkdtempSync(join(tmpdir(), 'coralmux-push-'));
    const args = ['-u', join(ROOT, 'tests/interop/push_service.py'), service.directory];
    service.program = new Program(join(ROOT, '.venv/bin/python'), args, { cwd: join(ROOT, 'tests/interop') });
    Object.assign(service, JSON.parse(await service.program.says(/^\{"host".*\}$/m)));
    return service;
  }

  // What a relay needs to send notifications here and nowhere else.
  get flags() {
    return ['--push-contact', 'mailto:ops@relay.example', '--push-hosts', this.host];
  }

  // What makes Firefox use it.
  get preferences() {
    return {
      'dom.push.serverURL': this.browsers,
      'dom.push.connection.enabled': true,
      'permissions.default.desktop-notification': 1,
      'alerts.useSystemBackend': false,
    };
  }

  // The notifications that came, oldest first: { path, headers, body }.
  get pushes() {
    return [...this.program.said.matchAll(/^\{"path".*\}$/gm)].map(([line]) => JSON.parse(line));
  }

  async stop() {
    await this.program.stop('SIGKILL');
    rmSync(this.directory, { recursive: true, force: true });
  }
}
