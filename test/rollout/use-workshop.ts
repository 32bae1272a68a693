/** What a file's tests begin and end with. */
import { afterEach, beforeEach, expect } from 'vitest';
import { native } from '../../src/engine/native.js';
import { Workshop } from './tiny.js';

const addon = native() as ReturnType<typeof native> & {
  useKernels(name: string): void;
  emulateDeviceMemory(bytes: number): void;
  failLaunch(ahead: number): void;
};

/** A workshop that each test finds empty; fails if a test ends with other tensors than it began with. */
export function useWorkshop(): Workshop {
  const workshop = new Workshop();
  let before = 0;
  beforeEach(() => {
    before = addon.liveTensors();
  });
  afterEach(() => {
    workshop.dispose();
    expect(addon.liveTensors()).toBe(before);
  });
  return workshop;
}

/**
 * The same on the emulation of the CUDA kernels. `deviceMemory` of so many bytes is handed out as a GPU's is
 * (native/kernels/cuda/emulation/device_memory.h), and the launch that `failLaunch` counts down to, from 1, fails, until the
 * test ends.
 */
export function useDeviceMemory(): {
  workshop: Workshop;
  deviceMemory: (bytes: number) => void;
  failLaunch: (ahead: number) => void;
} {
  beforeEach(() => addon.useKernels('emulated'));
  // Hooks of the end run from the last to the first: tensors are freed on the device that they lie on.
  afterEach(() => {
    addon.emulateDeviceMemory(0);
    addon.failLaunch(0);
    addon.useKernels(process.env.TROUPE_KERNELS ?? '');
  });
  return {
    workshop: useWorkshop(),
    deviceMemory: (bytes) => addon.emulateDeviceMemory(bytes),
    failLaunch: (ahead) => addon.failLaunch(ahead),
  };
}
