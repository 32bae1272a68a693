// A reward that random weights can get, for trying out speed: the share of even token ids in the response.
import type { RewardFunction } from 'troupe';

const evenTokens: RewardFunction = ({ completion }) => {
  const even = completion.ids.reduce((count, id) => count + (id % 2 === 0 ? 1 : 0), 0);
  return even / Math.max(1, completion.ids.length);
};

export default evenTokens;
