/** The install step: which libtorch it takes, what of it it fetches, and that whatever is missing ends in one sentence. */
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { attempts, cudaRequirements, explain, findLibtorch, inspect } from '../../scripts/libtorch.mjs';
import {
  bin,
  expectSentence,
  fakeLibtorch,
  install,
  program,
  project,
  root,
  useCheckout,
} from './checkout.js';

useCheckout();

const cmake = () => program('cmake', 'echo "cmake version 3.25.1"');

describe('the order in which libtorch is looked for', () => {
  it('LIBTORCH, then CMAKE_PREFIX_PATH, then an earlier install', () => {
    const [first, second] = [fakeLibtorch('first'), fakeLibtorch('second')];
    const own = fakeLibtorch('libtorch/torch');
    const find = (environment: Record<string, string>) => findLibtorch(root, environment).folder;
    expect(find({ LIBTORCH: first, CMAKE_PREFIX_PATH: second })).toBe(first);
    expect(find({ CMAKE_PREFIX_PATH: `/nowhere:${second}` })).toBe(second);
    expect(find({ CMAKE_PREFIX_PATH: join(second, 'share', 'cmake') })).toBe(second);
    expect(find({ CMAKE_PREFIX_PATH: join(second, 'share', 'cmake', 'Torch') })).toBe(second);
    expect(inspect(own)).toEqual({ folder: own, version: '2.13.0', cuda: false });
  });

  it('the torch of python3 comes before an earlier install', () => {
    const python = fakeLibtorch('python', '2.12.1');
    fakeLibtorch('libtorch/torch');
    program('python3', `echo ${python}`);
    expect(install().output).toContain(`libtorch 2.12.1: ${python}\n`);
  });

  it('a torch of python3 that is too old is passed over', () => {
    program('python3', `echo ${fakeLibtorch('python', '2.5.0')}`);
    const own = fakeLibtorch('libtorch/torch');
    const { output } = install();
    expect(output).toMatch(/Passing over the torch 2\.5\.0/);
    expect(output).toContain(`libtorch 2.13.0: ${own}\n`);
  });

  it('an unfit LIBTORCH is an error, not a reason to fetch another', () => {
    expectSentence(
      install({ LIBTORCH: join(root, 'no') }),
      /LIBTORCH is .*no, which has no libtorch/,
      /set it to/,
    );
    const old = fakeLibtorch('old', '2.5.0');
    expectSentence(install({ LIBTORCH: old }), /libtorch 2\.5\.0, but Troupe needs 2\.11 to 2\.14/);
    for (const version of ['2.11.0', '2.12.1', '2.13.0', '2.14.1'])
      expect(findLibtorch(root, { LIBTORCH: fakeLibtorch(version, version) }).version).toBe(version);
    for (const version of ['1.13.0', '2.10.2', '2.15.0', '3.12.0'])
      expect(() => findLibtorch(root, { LIBTORCH: fakeLibtorch(version, version) })).toThrow(
        `which has libtorch ${version}, but Troupe needs 2.11 to 2.14`,
      );
  });
});

describe('bin/troupe.js', () => {
  const troupe = (...options: string[]) => {
    const child = spawnSync(process.execPath, [...options, join(root, 'bin', 'troupe.js')], {
      encoding: 'utf8',
    });
    return { status: child.status, output: child.stdout, sentence: child.stderr.trim() };
  };
  const put = (path: string, text: string, seconds = 0) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
    const time = Date.now() / 1000 + seconds;
    utimesSync(join(root, path), time, time);
  };
  beforeEach(() => cpSync(join(project, 'bin', 'troupe.js'), join(bin, 'troupe.js')));

  it('says that nothing was built', () => {
    expectSentence(troupe(), /not installed yet: run 'npm ci' in/);
  });

  it('says that Node is too old', () => {
    put('build/js/cli/main.js', "console.log('ran');");
    put('old.cjs', "Object.defineProperty(process, 'versions', { value: { node: '18.19.0' } });");
    expectSentence(troupe('--require', join(root, 'old.cjs')), /needs Node 20 or newer; this is 18\.19\.0/);
  });

  it('says that a source is newer than what it was compiled to, and goes on', () => {
    put('build/js/cli/main.js', "console.log('ran');");
    put('src/cli/main.ts', '');
    expect(troupe()).toEqual({ status: 0, output: 'ran\n', sentence: '' });
    put('src/cli/main.ts', '', 3600);
    const { status, output, sentence } = troupe();
    expect({ status, output }).toEqual({ status: 0, output: 'ran\n' });
    expect(sentence).toMatch(
      /src\/cli\/main\.ts has changed since build\/js was compiled: run 'npm run build:js'/,
    );
  });
});

describe('fetching', () => {
  it('takes what pip fetched, from where the user has it first', () => {
    fakeLibtorch('fetched/torch');
    program(
      'python3',
      `while [ $# -gt 0 ]; do [ "$1" = --target ] && target=$2; [ "$1" = torch==2.13.0+cpu ] && found=1; shift; done
       [ -z "$target" ] || { [ -n "$found" ] && /bin/cp -r ${join(root, 'fetched')} "$target"; }`,
    );
    const { output } = install();
    const tries = existsSync('/proc/driver/nvidia/version') ? 3 : 1;
    expect(output.match(/Fetching libtorch/g)).toHaveLength(tries);
    expect(output).toContain(`libtorch 2.13.0: ${join(root, 'libtorch', 'torch')}\n`);
  });

  it("without a driver: the CPU build from the user's places, then from PyTorch's index; never the CUDA one", () => {
    const ways = attempts(false, 'x64').map((args) => args.join(' '));
    expect(ways[0]).toBe('--no-deps torch==2.13.0+cpu');
    expect(ways[1]).toBe('--no-deps --index-url https://download.pytorch.org/whl/cpu torch==2.13.0+cpu');
    expect(ways.every((way) => way.includes('+cpu'))).toBe(true);
  });

  it('with a driver: the CUDA build before the CPU one', () => {
    const ways = attempts(true, 'arm64').map((args) => args.join(' '));
    expect(ways[0]).toBe('--no-deps torch===2.13.0');
    expect(ways[1]).toMatch(/--platform=manylinux_2_28_aarch64 torch===2\.13\.0/);
    expect(ways[2]).toMatch(/\+cpu/);
  });

  /** As the wheel of torch 2.13.0 from PyPI says it. */
  const REQUIREMENTS = `Name: torch
Requires-Dist: filelock
Requires-Dist: sympy>=1.13.3
Requires-Dist: cuda-toolkit[cublas,cudart,nvrtc]==13.0.3; platform_system == "Linux"
Requires-Dist: cuda-bindings<14,>=13.0.3; platform_system == "Linux" and python_version < "3.15"
Requires-Dist: nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"
Requires-Dist: nvidia-nccl-cu13==2.29.7; platform_system == "Linux"
Requires-Dist: triton==3.7.1; platform_system == "Linux" and python_version < "3.15"
Requires-Dist: nvidia-extra==1; extra == "more"
`;
  const LIBRARIES = [
    'cuda-toolkit[cublas,cudart,nvrtc]==13.0.3; platform_system == "Linux"',
    'nvidia-cudnn-cu13==9.20.0.48; platform_system == "Linux"',
    'nvidia-nccl-cu13==2.29.7; platform_system == "Linux"',
  ];
  /** A pip that has this torch alone, with the libraries of CUDA or without, and writes down what it is asked for. */
  function pip(torch: string, hasLibraries: boolean): () => string[][] {
    mkdirSync(join(root, 'fetched/torch-2.13.0.dist-info'), { recursive: true });
    writeFileSync(join(root, 'fetched/torch-2.13.0.dist-info/METADATA'), REQUIREMENTS);
    fakeLibtorch('fetched/torch');
    if (!torch.includes('+cpu')) writeFileSync(join(root, 'fetched/torch/lib/libtorch_cuda.so'), '');
    const calls = join(root, 'calls');
    program(
      'python3',
      `[ "$3" = install ] || exit 0
       for one in "$@"; do echo "$one" >>${calls}; done; echo >>${calls}
       while [ $# -gt 0 ]; do
         [ "$1" = --target ] && target=$2; [ "$1" = ${torch} ] && found=1
         case "$1" in nvidia-*) ${hasLibraries ? 'exit 0' : ''};; esac; shift
       done
       [ -n "$found" ] && exec /bin/cp -r ${join(root, 'fetched')} "$target"
       echo "ERROR: No matching distribution found for it" >&2; exit 1`,
    );
    program('nvidia-smi', 'exit 0');
    return () => {
      const text = readFileSync(calls, 'utf8').trimEnd();
      return text.split('\n\n').map((call) => call.split('\n'));
    };
  }

  it('with a driver: of what torch asks for the libraries of CUDA, not Triton or Python packages', () => {
    const calls = pip('torch===2.13.0', true);
    expect(cudaRequirements(join(root, 'fetched'))).toEqual(LIBRARIES);
    const { output } = install();
    expect(output).toContain(`libtorch 2.13.0 with CUDA: ${join(root, 'libtorch', 'torch')}\n`);
    expect(output).not.toMatch(/no libtorch with CUDA|has no CUDA/);
    const [torch = [], libraries = []] = calls();
    expect(calls()).toHaveLength(2);
    expect(torch.slice(-2)).toEqual(['--no-deps', 'torch===2.13.0']);
    expect(libraries.slice(-LIBRARIES.length)).toEqual(LIBRARIES);
    expect(libraries).not.toContain('--no-deps');
  });

  it('with a driver, where the CUDA build or its libraries cannot be had: the CPU build, and it says so', () => {
    pip('torch===2.13.0', false);
    expectSentence(install(), /could not fetch torch .*No matching distribution/);
    rmSync(join(root, 'fetched'), { recursive: true });
    pip('torch==2.13.0+cpu', false);
    const { output } = install();
    expect(output).toMatch(
      /There is no libtorch with CUDA: pip could not fetch torch .*No matching distribution/,
    );
    expect(output).toContain(`libtorch 2.13.0: ${join(root, 'libtorch', 'torch')}\n`);
  });
});

describe('what is missing is said in one sentence', () => {
  it('pip', () => {
    expectSentence(install(), /pip.* is missing: install pip/, /LIBTORCH/);
  });

  it('the network', () => {
    const warning = "WARNING: Retrying (Retry(total=1)) after connection broken by 'NewConnectionError'";
    program('python3', `[ "$3" = install ] || exit 0; echo "${warning}" >&2; exit 1`);
    expectSentence(install(), /network cannot be reached: get online/);
  });

  it('space on the disk, or what pip itself says', () => {
    expect(explain(['ERROR: [Errno 28] No space left on device'])).toMatch(/does not fit on the disk: free/);
    expect(explain(['ERROR: No matching distribution found for torch'])).toMatch(/No matching distribution/);
  });

  it('CMake, or a newer one', () => {
    const environment = { LIBTORCH: fakeLibtorch('torch') };
    expectSentence(install(environment), /CMake 3\.20 or newer is missing: install it/);
    program('cmake', 'echo "cmake version 3.16.3"');
    expectSentence(install(environment), /CMake 3\.20 or newer is missing/);
  });

  it('Ninja and make', () => {
    cmake();
    expectSentence(install({ LIBTORCH: fakeLibtorch('torch') }), /Ninja or make is missing: install one/);
  });

  it('the compiler, or one that knows C++20', () => {
    const environment = { LIBTORCH: fakeLibtorch('torch') };
    cmake();
    program('ninja', 'exit 0');
    expectSentence(install(environment), /A C\+\+ compiler is missing: install GCC 11 or newer/);
    expectSentence(
      install({ ...environment, CXX: 'g++-99' }),
      /compiler that CXX names, g\+\+-99, is missing/,
    );
    program('c++', '[ "$1" = --version ]');
    expectSentence(install(environment), /c\+\+ is not GCC 11 or newer with OpenMP/);
    // A clang that is called c++ does not stand before a g++ that will do.
    program('c++', '[ "$1" = --version ] || exit 1');
    program('g++', 'exit 0');
    mkdirSync(join(root, 'native'));
    writeFileSync(join(root, 'CMakeLists.txt'), '');
    program('cmake', '[ "$1" = --version ] && echo "cmake version 3.25.1" || exit 1');
    expect(install(environment).sentence).toMatch(/could not be built/);
  });
});

it('an addon whose sources are edited while it is built does not count as built', () => {
  const environment = { LIBTORCH: fakeLibtorch('torch'), PATH: `${bin}:/usr/bin:/bin` };
  const source = join(root, 'native/a.cc');
  mkdirSync(dirname(source));
  for (const file of [source, join(root, 'CMakeLists.txt')]) writeFileSync(file, 'before');
  const release = join(root, 'build/Release');
  const addon = `mkdir -p ${release} && echo 'module.exports = {}' >${release}/troupe.node`;
  for (const name of ['c++', 'ninja']) program(name, 'exit 0');
  /** Builds with a CMake that does this beside; what the install step says, and whether it finds the addon built after that. */
  const build = (beside: string) => {
    program('cmake', `[ "$1" != --version ] || exec echo "cmake version 3.25.1"; ${addon}; ${beside}`);
    const { status, output } = install(environment, '--native-only');
    return {
      status,
      says: /changed while it was built/.test(output),
      noted: existsSync(join(release, 'troupe.sha256')),
    };
  };
  expect(build(`echo after >${source}`)).toEqual({ status: 0, says: true, noted: false });
  expect(build('exit 0')).toEqual({ status: 0, says: false, noted: true });
});

describe('npx in a checkout', () => {
  const npx = () => {
    // Not the variables of the npx that may have started these tests.
    const env = { PATH: process.env.PATH, HOME: root };
    return spawnSync('npx', ['troupe', 'a word'], { cwd: root, encoding: 'utf8', env });
  };
  beforeEach(() => {
    rmSync(join(root, 'node_modules'));
    cpSync(join(project, 'bin'), join(root, 'bin'), { recursive: true });
    const { name, version, type, bin } = JSON.parse(readFileSync(join(project, 'package.json'), 'utf8'));
    const scripts = { install: 'node scripts/install.mjs' };
    writeFileSync(join(root, 'package.json'), JSON.stringify({ name, version, type, bin, scripts }));
  });

  it('runs what npm ci has made, and builds nothing again', () => {
    const sources = new Set(readdirSync(root));
    mkdirSync(join(root, 'build/js/cli'), { recursive: true });
    writeFileSync(join(root, 'build/js/cli/main.js'), 'console.log("the checkout", process.argv[2])\n');
    expect(npx()).toMatchObject({ status: 0, stdout: 'the checkout a word\n' });
    expect(readdirSync(root).filter((name) => !sources.has(name))).toEqual(['.npm', 'build']);
    expect(readdirSync(join(root, 'build'))).toEqual(['js']);
  });

  it('says that npm ci has to come first', () => {
    const { status, stderr } = npx();
    expect({ status, stderr }).toEqual({
      status: 1,
      stderr: expect.stringContaining(`Troupe is not installed yet: run 'npm ci' in ${root}/.\n`),
    });
  });
});
