/** temporary */
export async function resolveModel(name: string): Promise<string> {
  return name;
}
