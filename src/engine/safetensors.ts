/**
 * Opening and writing safetensors files. What is wrong with a file, or the disk that it should go to, is for the
 * user to mend: native messages, which name the file, become errors for people here.
 */
import { reasonOf, TroupeError } from '../config/errors.js';
import { type NativeSafetensors, native } from './native.js';
import type { NativeTensor } from './native-model.js';

/** Maps a file. Throws a TroupeError if it is missing, truncated or damaged. */
export function openSafetensors(file: string): NativeSafetensors {
  const addon = native();
  return forPeople(file, () => addon.openSafetensors(file));
}

/** Writes a file whole; on any error, a full disk for one, there is none. Throws a TroupeError. */
export function saveSafetensors(
  file: string,
  tensors: Record<string, NativeTensor>,
  metadata: Record<string, string>,
): void {
  const addon = native();
  forPeople(file, () => addon.saveSafetensors(file, tensors, metadata));
}

/** Native messages begin with the file, or name it. */
export function forPeople<T>(file: string, use: () => T): T {
  try {
    return use();
  } catch (cause) {
    const message = reasonOf(cause).replace(`${file}: `, '').replace(`${file} `, '');
    throw new TroupeError(`${message}.`, { where: file, cause });
  }
}
