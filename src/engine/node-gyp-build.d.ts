/** node-gyp-build 4.8 comes without types; what load.ts uses of it. */
declare module 'node-gyp-build' {
  const load: {
    /** The addon file for `folder`: build/Release first, then a fitting one under prebuilds/. */
    path(folder: string): string;
  };
  export default load;
}
