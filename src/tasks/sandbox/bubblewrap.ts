/**
 * Finds bubblewrap and the Python interpreter, and writes the command line that starts a sandbox. What the
 * sandbox shows of the system: /usr and its links, read-only, and the interpreter's prefixes where they lie
 * elsewhere; the rest is new and empty. Processes are in process.ts.
 */
import { execFile } from 'node:child_process';
import { accessSync, constants, existsSync, lstatSync, readlinkSync, realpathSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { TroupeError } from '../../config/errors.js';
import { packageRoot } from '../../config/package.js';
import { type Limits, ownLimits } from './limits.js';

const run = promisify(execFile);

/** How the program comes to another user: see `userArguments`. */
export type UserMode = 'other-user' | 'namespace';

/** What sandboxes are started with. */
export interface Installation {
  bubblewrap: { path: string; version: string; options: Set<string> };
  /** `folders`: what of it lies outside of /usr. `modules`: where it looks for modules. */
  python: { path: string; version: string; folders: string[]; modules: string[] };
  /** Path of setpriv, which changes the user where Troupe runs as root. */
  setpriv: string | undefined;
}

/** Throws a TroupeError that says what to install. `python`: name or path of an interpreter. */
export async function findInstallation(python = 'python3'): Promise<Installation> {
  if (process.platform !== 'linux') {
    throw new TroupeError('generated code runs in a sandbox that only Linux has.', {
      hint: 'Run code tasks on Linux, or in a Linux container or virtual machine.',
    });
  }
  const path = findProgram('bwrap');
  if (path === undefined) {
    throw new TroupeError('generated code runs only in a sandbox, and bubblewrap (bwrap) is not installed.', {
      hint: 'Install it: apt-get install bubblewrap.',
    });
  }
  const [version, help, interpreter] = await Promise.all([
    run(path, ['--version']),
    run(path, ['--help']),
    findPython(python),
  ]);
  const options = new Set(help.stdout.match(/--[a-z-]+/g) ?? []);
  const bubblewrap = { path, version: version.stdout.replace(/^bubblewrap/, '').trim(), options };
  return { bubblewrap, python: interpreter, setpriv: findProgram('setpriv') };
}

function findProgram(name: string): string | undefined {
  return (process.env.PATH ?? '/usr/bin:/bin')
    .split(delimiter)
    .filter((folder) => folder !== '')
    .map((folder) => join(folder, name))
    .find(isExecutable);
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK);
    return lstatSync(realpathSync(path)).isFile();
  } catch {
    return false;
  }
}

// Compiles what runs inside as well, where its folder can be written: sandboxes start faster then.
const ASK = `import compileall, json, sys
compileall.compile_dir(sys.argv[1], quiet=2)
version = "%d.%d.%d" % sys.version_info[:3]
print(json.dumps([sys.executable, sys.prefix, sys.base_prefix, version, *sys.path[1:]]))`;

async function findPython(name: string): Promise<Installation['python']> {
  let answer: string;
  try {
    answer = (await run(name, ['-c', ASK, CODE])).stdout;
  } catch (error) {
    throw new TroupeError(`the Python interpreter "${name}" does not run: ${firstLine(error)}`, {
      hint: 'Install it (apt-get install python3), or name another one with task.python.',
      cause: error,
    });
  }
  const [path = '', prefix = '', base = '', version = '', ...modules] = JSON.parse(answer) as string[];
  const folders = [prefix, base, dirname(dirname(realpathSync(path)))];
  return {
    path,
    version,
    modules,
    folders: [...new Set(folders)].filter((folder) => !isInSystem(folder)).map(checked),
  };
}

function firstLine(error: unknown): string {
  return (error as Error).message.split('\n')[0] ?? '';
}

function isInSystem(folder: string): boolean {
  return folder === '/usr' || folder.startsWith('/usr/');
}

/** A prefix is shown to the program under test, so it must not be a home directory or the whole system. */
function checked(folder: string): string {
  if (folder === '/' || folder === '/home' || folder === '/root' || folder === homedir()) {
    throw new TroupeError(
      `the Python interpreter's prefix is ${folder}, which generated code must not see.`,
      {
        hint: 'Name another interpreter with task.python, e.g. /usr/bin/python3.',
      },
    );
  }
  return folder;
}

/** The Python code that runs in a sandbox, out here and in there. */
const CODE = join(packageRoot(), 'src', 'tasks', 'sandbox', 'python');
const CODE_INSIDE = '/opt/troupe';

/**
 * Arguments of bwrap. The seccomp filter, if any, is read from descriptor `seccomp`; bubblewrap
 * tells what it started on descriptor `status`. `user`: number of the user
 * that the program runs as.
 */
export function bubblewrapArguments(
  { bubblewrap, python, setpriv }: Installation,
  limits: Limits,
  mode: UserMode,
  user: number,
  { seccomp, status }: { seccomp: number | undefined; status: number },
): string[] {
  const { options } = bubblewrap;
  const temporary = (folder: string, mebibytes: number) =>
    options.has('--size') ? ['--size', String(mebibytes * 2 ** 20), '--tmpfs', folder] : ['--tmpfs', folder];
  return [
    ...['--unshare-ipc', '--unshare-pid', '--unshare-net', '--unshare-uts', '--unshare-cgroup-try'],
    ...['--die-with-parent', '--new-session', '--hostname', 'sandbox'],
    ...namespaceArguments(options, mode, user),
    ...systemArguments(),
    ...python.folders.flatMap((folder) => [...above(folder), '--ro-bind', folder, folder]),
    ...[...above(CODE_INSIDE), '--ro-bind', CODE, CODE_INSIDE],
    ...['--proc', '/proc', '--dev', '/dev', ...temporary('/dev/shm', 1)],
    ...['--dir', '/home/sandbox', ...temporary('/tmp', limits.temporaryMiB)],
    ...(mode === 'other-user' ? ['--chmod', '1777', '/tmp', '--chmod', '1777', '/dev/shm'] : []),
    ...['--remount-ro', '/dev', '--remount-ro', '/', '--chdir', '/tmp'],
    ...(seccomp === undefined ? [] : ['--seccomp', String(seccomp)]),
    ...['--json-status-fd', String(status)],
    '--',
    ...(mode === 'other-user' ? otherUser(setpriv, user) : []),
    ...[python.path, '-B', '-u', '-S', CODE_INSIDE],
    JSON.stringify({ limits: ownLimits(limits), path: python.modules }),
  ];
}

/** The folders that lead to a path: bubblewrap makes them by itself, but for root alone to enter. */
function above(path: string): string[] {
  const folders: string[] = [];
  for (let folder = dirname(path); folder !== '/'; folder = dirname(folder)) folders.unshift('--dir', folder);
  return folders;
}

/**
 * In a user namespace the program is nobody there, but outside it counts as whoever started Troupe. That is
 * enough but for root, whom limits on processes do not bind: as root no user namespace is made, and setpriv
 * changes to a user of the sandbox's own.
 */
function namespaceArguments(options: Set<string>, mode: UserMode, user: number): string[] {
  if (mode === 'other-user') {
    const needed = ['CAP_SETUID', 'CAP_SETGID', 'CAP_SETPCAP'];
    return ['--cap-drop', 'ALL', ...needed.flatMap((capability) => ['--cap-add', capability])];
  }
  const nested = options.has('--disable-userns') ? ['--disable-userns'] : [];
  return ['--unshare-user', ...nested, '--uid', String(user), '--gid', String(user), '--cap-drop', 'ALL'];
}

function otherUser(setpriv: string | undefined, user: number): string[] {
  const id = String(user);
  return [setpriv ?? 'setpriv', '--reuid', id, '--regid', id, '--clear-groups'].concat([
    '--inh-caps=-all',
    '--bounding-set=-all',
    '--no-new-privs',
    '--',
  ]);
}

/** /usr, and what of the root directory leads into it; of /etc only what the dynamic linker reads. */
function systemArguments(): string[] {
  const folders = ['/bin', '/sbin', '/lib', '/lib32', '/lib64'].filter((folder) => existsSync(folder));
  const links = folders.flatMap((folder) =>
    lstatSync(folder).isSymbolicLink()
      ? ['--symlink', readlinkSync(folder), folder]
      : ['--ro-bind', folder, folder],
  );
  const extra = ['/etc/ld.so.cache', '/etc/alternatives', '/nix/store'];
  return ['--ro-bind', '/usr', '/usr', ...links, ...extra.flatMap((path) => ['--ro-bind-try', path, path])];
}

/** What the program finds in its environment. One thread for numerical libraries: threads count as processes. */
export const ENVIRONMENT = {
  PATH: '/usr/local/bin:/usr/bin:/bin',
  HOME: '/home/sandbox',
  LANG: 'C.UTF-8',
  PYTHONHASHSEED: '0',
  OMP_NUM_THREADS: '1',
  OPENBLAS_NUM_THREADS: '1',
  MKL_NUM_THREADS: '1',
};
