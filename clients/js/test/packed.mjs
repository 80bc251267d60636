// The package as npm packs it, unpacked in a project of its own.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

export const PACKAGE = fileURLToPath(new URL('..', import.meta.url));

// The folder of the project, and what removes it.
export function unpacked() {
  const folder = mkdtempSync(join(tmpdir(), 'coralmux-packed-'));
  const run = (command, ...args) => execFileSync(command, args, { cwd: PACKAGE, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] });
  const [{ filename, files }] = JSON.parse(run('npm', 'pack', '--json', '--ignore-scripts', '--pack-destination', folder));
  const scope = join(folder, 'node_modules', '@coralmux', 'client');
  mkdirSync(scope, { recursive: true });
  run('tar', '-xzf', join(folder, filename), '-C', scope, '--strip-components=1');
  symlinkSync(join(PACKAGE, 'node_modules', '@noble'), join(folder, 'node_modules', '@noble'));
  return {
    folder,
    tarball: join(folder, filename),
    files: files.map(({ path }) => path),
    entry: (name) => import(pathToFileURL(join(scope, 'dist', name)).href),
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
