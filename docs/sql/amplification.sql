-- Did amplification rise before the cliff? The cliff begins at the first evaluation after the peak from which on
-- accuracy stays 5 points below it. Amplification of each role in the ten steps before that, against its first ten.
-- No rows: the run has no cliff.
WITH accuracies AS (
  SELECT step, avg(correct::INTEGER) AS accuracy FROM 'evaluations.parquet' GROUP BY step
), peak AS (
  SELECT max(accuracy) AS accuracy, arg_max(step, accuracy) AS step FROM accuracies
), cliff AS (
  SELECT min(after.step) AS step
  FROM accuracies AS after, peak
  WHERE after.step > peak.step AND NOT EXISTS (
    SELECT 1 FROM accuracies AS later
    WHERE later.step >= after.step AND later.accuracy > peak.accuracy - 0.05
  )
), amplifications AS (
  SELECT step, role, avg(amplification) AS amplification
  FROM 'gradients.parquet'
  WHERE grouping = 'role' AND scope = 'total' AND amplification IS NOT NULL
  GROUP BY step, role
)
SELECT role, any_value(cliff.step) AS cliff_step,
       avg(amplification) FILTER (amplifications.step < 10) AS first_steps,
       avg(amplification) FILTER (amplifications.step >= cliff.step - 10 AND amplifications.step < cliff.step)
         AS before_cliff
FROM amplifications, cliff
WHERE cliff.step IS NOT NULL
GROUP BY role
ORDER BY role;
