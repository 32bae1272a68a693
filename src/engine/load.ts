/**
 * Finds and loads the addon: a prebuild made for the torch that the install step chose, else build/Release.
 * Says what to do when that fails; node-gyp-build alone hides the loader's own message.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import nodeGypBuild from 'node-gyp-build';
import { TroupeError } from '../config/errors.js';
import { packageRoot } from '../config/package.js';

const REBUILD = "Run 'npm run build:native' in Troupe's folder";

/** "2.13" of "2.13.0+cpu". */
export function minorVersion(version: string): string {
  return version.split('.').slice(0, 2).join('.');
}

/**
 * The folder that node-gyp-build searches: the prebuild that the install step linked, else the package's own. Prebuilds are
 * for one minor version of libtorch, whose C++ interface changes with each.
 */
function addonFolder(root: string): string {
  const prebuild = join(root, 'prebuilds', 'addon');
  return existsSync(prebuild) ? prebuild : root;
}

/** What a person can do about the loader's `message`. */
export function remedy(message: string): string {
  if (/lib(torch|c10)\w*\.so.*cannot open shared object/.test(message)) {
    return `libtorch was moved or removed since the addon was built. ${REBUILD}.`;
  }
  if (/undefined symbol/.test(message)) {
    return `The addon was built against another version of libtorch. ${REBUILD}.`;
  }
  if (/GLIBC(XX)?_[\d.]+' not found/.test(message)) {
    return `The addon was built on a newer system. ${REBUILD} on this machine.`;
  }
  // Of a file that is there the loader says so, where it is for another processor.
  if (
    /invalid ELF header|wrong ELF class|file too short|troupe[\w.]*\.node: cannot open shared/.test(message)
  ) {
    return `The addon's file is damaged or made for another processor. ${REBUILD}.`;
  }
  if (/cannot open shared object/.test(message)) {
    return `A library that the addon needs is missing: install it, or ${lowerFirst(REBUILD)} on this machine.`;
  }
  return `${REBUILD}, and look at what it prints.`;
}

function lowerFirst(text: string): string {
  return text.charAt(0).toLowerCase() + text.slice(1);
}

/** What the addon says of how it was built. */
interface Built {
  torchVersion: string;
  compiledTorchVersion: string;
  /** Hash of its sources (scripts/sources.cjs); addons did not always have it. */
  builtFrom?: string;
}

const require = createRequire(import.meta.url);

/** @throws {TroupeError} if there is no addon, it cannot be loaded, or it was built for another libtorch or of other sources. */
export function loadAddon(): unknown {
  const root = packageRoot();
  let file: string;
  try {
    file = nodeGypBuild.path(addonFolder(root));
  } catch (cause) {
    throw new TroupeError('the native addon was not built.', { where: root, hint: `${REBUILD}.`, cause });
  }
  let addon: Built;
  try {
    addon = require(file);
  } catch (cause) {
    const message = (cause as Error).message;
    throw new TroupeError(`the native addon could not be loaded: ${message}.`, {
      where: file,
      hint: remedy(message),
      cause,
    });
  }
  checkBuilt(addon, root, file);
  return addon;
}

function checkBuilt({ torchVersion, compiledTorchVersion, builtFrom }: Built, root: string, file: string) {
  if (torchVersion !== 'unknown' && minorVersion(torchVersion) !== minorVersion(compiledTorchVersion)) {
    throw new TroupeError(`built against libtorch ${compiledTorchVersion} but found ${torchVersion}.`, {
      where: file,
      hint: `${REBUILD}.`,
    });
  }
  // An image may hold the addon alone.
  if (!existsSync(join(root, 'native'))) return;
  if (builtFrom === require(join(root, 'scripts', 'sources.cjs')).sourcesHash(root)) return;
  throw new TroupeError('the native addon was built of other sources than those in native/.', {
    where: file,
    hint: `${REBUILD}; after an update, 'npm ci'.`,
  });
}
