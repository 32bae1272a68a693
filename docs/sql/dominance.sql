-- Which role dominates when? Spans of steps in which one role has the largest share of its policy's gradient mass.
WITH shares AS (
  SELECT step, policy, role, avg(mass_share) AS share
  FROM 'gradients.parquet'
  WHERE grouping = 'role' AND scope = 'total' AND mass_share IS NOT NULL
  GROUP BY step, policy, role
), largest AS (
  SELECT step, policy, arg_max(role, share) AS role, max(share) AS share
  FROM shares GROUP BY step, policy
), numbered AS (
  SELECT *, row_number() OVER (PARTITION BY policy ORDER BY step)
          - row_number() OVER (PARTITION BY policy, role ORDER BY step) AS span
  FROM largest
)
SELECT policy, role, min(step) AS first_step, max(step) AS last_step, count(*) AS steps, avg(share) AS mean_share
FROM numbered
GROUP BY policy, role, span
ORDER BY policy, first_step;
