// What npm gets: its shape, its types, its size.
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { gzipSync } from 'node:zlib';
import { build } from 'esbuild';
import { PACKAGE, unpacked } from './packed.mjs';

// What it adds to an app, minified and compressed: a phone alone, everything, everything with @noble.
const GZIP_BYTES_MAX = { "export { Phone } from '@coralmux/client'": 20_500, "export * from '@coralmux/client'": 23_500, "export * from '@coralmux/client/noble'": 41_000 };

let packed;

before(() => (packed = unpacked()));
after(() => packed?.remove());

const bin = (name) => join(PACKAGE, 'node_modules', '.bin', name);

test('the tarball has what it needs, and nothing else', () => {
  const files = packed.files.map((file) => file.replace(/shared-\w+/, 'shared'));
  assert.deepEqual(files.sort(), ['LICENSE', 'README.md', 'dist/index.d.ts', 'dist/index.js', 'dist/noble.d.ts', 'dist/noble.js', 'dist/shared.js', 'package.json'].sort());
  const { dependencies, version } = JSON.parse(readFileSync(join(PACKAGE, 'package.json'), 'utf8'));
  assert.equal(dependencies, undefined);
  const workspace = readFileSync(join(PACKAGE, '../../Cargo.toml'), 'utf8');
  assert.equal(version, workspace.match(/^version = "(.*)"$/m)[1], 'the version is that of the workspace');
});

test('publint finds nothing', () => {
  const said = execFileSync(bin('publint'), ['run', packed.tarball, '--strict'], { cwd: PACKAGE, encoding: 'utf8' });
  assert.match(said, /All good/);
});

test('every way to import it finds its types', () => {
  const { status, stdout, stderr } = spawnSync(bin('attw'), [packed.tarball, '--profile', 'esm-only', '--format', 'ascii', '--no-color'], { encoding: 'utf8' });
  assert.equal(status, 0, stdout + stderr);
  assert.equal(stdout.match(/^(node16 \(from ESM\)|bundler): 🟢/gm)?.length, 6, stdout);
});

test('the types fit what an app writes, and refuse what is wrong', () => {
  copyFileSync(join(PACKAGE, 'test/app.ts'), join(packed.folder, 'app.ts'));
  writeFileSync(join(packed.folder, 'package.json'), '{"type":"module"}');
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,dom', '--types', '', 'app.ts'];
  const { status, stdout } = spawnSync(bin('tsc'), options, { cwd: packed.folder, encoding: 'utf8' });
  assert.equal(status, 0, stdout);
});

test('everything that is exported has a type, and the other way round', async () => {
  for (const name of ['index', 'noble']) {
    const types = readFileSync(join(PACKAGE, 'types/index.d.ts'), 'utf8');
    const declared = [...types.matchAll(/^export (?:class|function) (\w+)/gm)].map(([, what]) => what);
    assert.deepEqual(Object.keys(await packed.entry(`${name}.js`)).sort(), declared.sort());
  }
});

test('it stays small', async () => {
  for (const [contents, bytes] of Object.entries(GZIP_BYTES_MAX)) {
    const { outputFiles } = await build({ stdin: { contents, resolveDir: packed.folder }, bundle: true, minify: true, format: 'esm', write: false, preserveSymlinks: true });
    const size = gzipSync(outputFiles[0].contents, { level: 9 }).length;
    assert.ok(size <= bytes, `${contents}: ${size} bytes`);
    assert.ok(size > bytes * 0.8, `${contents}: ${size} bytes: the limit is out of date`);
  }
});
