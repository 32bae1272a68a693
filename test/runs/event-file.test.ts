/**
 * Fails if event files are not what TensorBoard writes. The bytes are those of TensorBoard 2.21 itself: of
 * tensorboard.compat.proto.event_pb2.Event(…).SerializeToString() and tensorboard.summary.writer.record_writer.
 */
import { describe, expect, it } from 'vitest';
import {
  crc32c,
  frame,
  frames,
  histogramValue,
  readEvent,
  scalarValue,
  startEvent,
  summaryEvent,
  textValue,
  versionEvent,
} from '../../src/runs/sinks/event-file.js';

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');

describe('an event file', () => {
  it('has the checksums of RFC 3720', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa);
    expect(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i))).toBe(0x46dd794e);
  });

  it("has TensorBoard's bytes", () => {
    expect(hex(frame(Buffer.from('troupe')))).toBe('06000000000000007369d53774726f757065b7bb1deb');
    expect(hex(versionEvent(1.5))).toBe('09000000000000f83f1a0d627261696e2e4576656e743a32');
    expect(hex(startEvent(1.5, 300))).toBe('09000000000000f83f10ac023a020801');
    const values = [scalarValue('train/reward', 0.25), histogramValue('h', [2, 2, 2]), textValue('t', 'hé')];
    expect(hex(summaryEvent(1.5, 300, values))).toBe(
      '09000000000000f83f10ac022a7b0a130a0c747261696e2f726577617264150000803e0a460a01682a4109000000000000004011' +
        '0000000000000040190000000000000840210000000000001840290000000000002840320800000000000000403a08000000' +
        '00000008400a1c0a0174420d0807120412020801420368c3a94a080a060a0474657874',
    );
  });

  it('is read up to the first record that is not whole', () => {
    const events = [1, 2, 3].map((step) => frame(summaryEvent(1, step, [scalarValue(`s${step}`, 1)])));
    const file = Buffer.concat(events);
    const read = (bytes: Buffer) => [...frames(bytes)].map(({ data }) => readEvent(data));
    expect(read(file)).toEqual([1, 2, 3].map((step) => ({ step, names: [`s${step}`] })));
    expect(read(file.subarray(0, file.length - 1))).toHaveLength(2);
    const damaged = Buffer.from(file);
    const at = (events[0]?.length ?? 0) + 14;
    damaged.writeUInt8(damaged.readUInt8(at) ^ 1, at);
    expect(read(damaged)).toHaveLength(1);
    const endless = Buffer.from(file);
    endless.writeBigUInt64LE(2n ** 63n, 0);
    expect(read(endless)).toEqual([]);
  });
});
