// What people run in front of a relay: real nginx, Caddy, HAProxy and Traefik with the files of deploy/proxy, in which
// nothing but ports, certificates and names of hosts is replaced.
import assert from 'node:assert/strict';
import { X509Certificate, createHash } from 'node:crypto';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { within } from './client.mjs';
import { Program } from './program.mjs';
import { ROOT, freePort } from './relay.mjs';

const START_MS = 20_000;

// A certificate of `localhost`: `cert`, `key` and `both` are files, `ca` is its text, `pin` what Chromium calls its key.
export function certificate(folder) {
  const [cert, key, both] = ['cert.pem', 'key.pem', 'both.pem'].map((name) => join(folder, name));
  const made = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '30'];
  const extensions = ['subjectAltName=DNS:localhost', 'basicConstraints=critical,CA:FALSE'].flatMap((one) => ['-addext', one]);
  execFileSync('openssl', [...made, '-keyout', key, '-out', cert, '-subj', '/CN=localhost', ...extensions], { stdio: 'ignore' });
  const ca = readFileSync(cert, 'utf8');
  writeFileSync(both, ca + readFileSync(key, 'utf8'));
  const spki = new X509Certificate(ca).publicKey.export({ type: 'spki', format: 'der' });
  return { cert, key, both, ca, pin: createHash('sha256').update(spki).digest('base64') };
}

// Each gets a folder for what it writes, the text of its file, the certificate and its port; what it returns is started.
const KINDS = {
  nginx: {
    file: 'nginx.conf',
    edit: (text, { cert, key }, port) =>
      replaced(text, [
        [/listen 443 ssl/g, `listen 127.0.0.1:${port} ssl`],
        [/\S+fullchain\.pem/g, cert],
        [/\S+privkey\.pem/g, key],
      ]),
    command(folder, file) {
      const paths = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'];
      const temporary = paths.map((path) => `${path}_temp_path ${join(folder, path)};`).join('\n');
      const main = join(folder, 'main.conf');
      writeFileSync(main, `daemon off; pid ${join(folder, 'pid')}; error_log stderr; events {}
        http { access_log off; ${temporary} include ${file}; }`);
      return ['/usr/sbin/nginx', ['-e', 'stderr', '-c', main]];
    },
  },
  caddy: {
    file: 'Caddyfile',
    edit: (text, { cert, key }, port) =>
      `{\n\tadmin off\n\thttps_port ${port}\n\tauto_https disable_redirects\n}\n` +
      replaced(text, [[/^localhost \{/gm, `localhost {\n\tbind 127.0.0.1\n\ttls ${cert} ${key}\n`], [/^\S+\.example\.com \{/gm, `other.localhost {\n\tbind 127.0.0.1\n\ttls ${cert} ${key}\n`]]),
    command: (_, file) => ['caddy', ['run', '--adapter', 'caddyfile', '--config', file]],
  },
  haproxy: {
    file: 'haproxy.cfg',
    edit: (text, { both }, port) => replaced(text, [[/bind :443 ssl/g, `bind 127.0.0.1:${port} ssl`], [/\S+coralmux\.pem/g, both]]),
    command: (_, file) => ['/usr/sbin/haproxy', ['-W', '-f', file]],
  },
  traefik: {
    file: 'traefik-dynamic.yaml',
    edit: (text, { cert, key }) => replaced(text, [[/\S+fullchain\.pem/g, cert], [/\S+privkey\.pem/g, key]]),
    command: (_, file, port) => [
      join(ROOT, '.venv/bin/traefik'),
      [`--entrypoints.websecure.address=127.0.0.1:${port}`, `--providers.file.filename=${file}`, '--global.sendanonymoususage=false', '--global.checknewversion=false'],
    ],
  },
};

export const NAMES = Object.keys(KINDS);

function replaced(text, pairs) {
  for (const [from, to] of pairs) {
    assert.match(text, from);
    text = text.replace(from, to);
  }
  return text;
}

export class Proxy {
  // Starts one of `NAMES` in front of a relay, so that `host` (a name in its file) is `localhost`.
  static async start(name, host, relay, pair) {
    const proxy = new Proxy();
    const kind = KINDS[name];
    proxy.folder = mkdtempSync(join(tmpdir(), `coralmux-${name}-`));
    proxy.port = await freePort();
    proxy.origin = `https://localhost:${proxy.port}`;
    const file = join(proxy.folder, kind.file);
    const text = replaced(readFileSync(join(ROOT, 'deploy/proxy', kind.file), 'utf8'), [
      [new RegExp(host.replaceAll('.', '\\.'), 'g'), 'localhost'],
      [/127\.0\.0\.1:8080/g, `127.0.0.1:${relay.port}`],
    ]);
    writeFileSync(file, kind.edit(text, pair, proxy.port));
    const [command, args] = kind.command(proxy.folder, file, proxy.port);
    const env = { ...process.env, XDG_DATA_HOME: proxy.folder, XDG_CONFIG_HOME: proxy.folder };
    proxy.program = new Program(command, args, { cwd: proxy.folder, env });
    try {
      await proxy.#listening(pair.ca);
    } catch (error) {
      await proxy.stop();
      throw error;
    }
    return proxy;
  }

  // Traefik listens before it has read its file, and answers with another certificate then.
  async #listening(ca) {
    const deadline = Date.now() + START_MS;
    const { process } = this.program;
    const answers = () => new Promise((done) => get(this.origin, { ca }, (answer) => done(answer.resume())).on('error', () => done()));
    while (!(await answers())) {
      assert.ok(process.exitCode === null && Date.now() < deadline, this.program.said);
      await delay(20);
    }
  }

  async stop() {
    this.program.process.kill('SIGTERM');
    await within(this.program.ended, "proxy's end").catch(() => this.program.process.kill('SIGKILL'));
    rmSync(this.folder, { recursive: true, force: true });
  }
}
