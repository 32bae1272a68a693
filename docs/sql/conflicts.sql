-- Which layers conflict? Mean cosine between two roles of one policy in each layer, the most opposed first. `measured`
-- is the number of steps; `claimed` of them had, over all layers, a noise floor that allows to claim a conflict
-- (gradients.promptBuckets; null: it was not measured, and a negative cosine may be noise).
WITH totals AS (
  SELECT policy, role_a, role_b,
         CASE WHEN count(corrected_high) > 0 THEN count(*) FILTER (corrected_high < 0) END AS claimed
  FROM 'gradient_pairs.parquet'
  WHERE grouping = 'role' AND scope = 'total' AND role_a <> role_b
  GROUP BY policy, role_a, role_b
)
SELECT policy, role_a, role_b, layer, avg(cosine) AS mean_cosine,
       avg((cosine < 0)::INTEGER) AS negative_share, count(cosine) AS measured, any_value(claimed) AS claimed
FROM 'gradient_pairs.parquet' JOIN totals USING (policy, role_a, role_b)
WHERE grouping = 'role' AND scope = 'layer' AND role_a <> role_b AND layer >= 0 AND cosine IS NOT NULL
GROUP BY policy, role_a, role_b, layer
ORDER BY mean_cosine;
