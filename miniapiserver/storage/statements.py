"""The SQL of the embedded engine.

My job: the schema and each statement `sqlite` runs, beside the reason it is right. I run nothing.
"""

SCHEMA = """
CREATE TABLE IF NOT EXISTS log (
  revision INTEGER PRIMARY KEY, key TEXT NOT NULL, value BLOB,
  create_revision INTEGER NOT NULL, previous INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS current (
  key TEXT PRIMARY KEY, revision INTEGER NOT NULL, expires REAL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS current_expires ON current(expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""

INSERT_CURRENT = "INSERT INTO current(key, revision, expires) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
UPDATE_CURRENT = "UPDATE current SET revision = ?, expires = ? WHERE key = ? AND revision = ?"
DELETE_CURRENT = "DELETE FROM current WHERE key = ? AND revision = ?"
INSERT_LOG = "INSERT INTO log(revision, key, value, create_revision, previous) VALUES (?, ?, ?, ?, ?)"
SELECT_LOG = "SELECT value, create_revision FROM log WHERE revision = ?"
SELECT_KEY = """
SELECT log.value, log.create_revision, log.revision FROM current JOIN log ON log.revision = current.revision
WHERE current.key = ?"""

SELECT_LEASES = "SELECT expires, key, revision FROM current WHERE expires IS NOT NULL"

# The state at :at: what has not changed since, and for what has, the row that its first change since then replaced
# (a bare column beside min() comes from the row that has the minimum: sqlite.org/lang_select.html#bareagg).
STATE_AT = """
SELECT key, revision FROM current WHERE key >= :low AND key < :high AND revision <= :at
UNION ALL SELECT key, previous FROM (SELECT key, previous, min(revision) FROM log
  WHERE revision > :at AND key >= :low AND key < :high GROUP BY key) WHERE previous > 0
"""
# Ordered and cut before the values are looked up: the first half comes in key order, so a page costs what it shows.
SELECT_RANGE = f"""
SELECT state.key, log.value, log.create_revision, state.revision FROM ({STATE_AT} ORDER BY key LIMIT :limit) AS state
JOIN log ON log.revision = state.revision ORDER BY state.key"""
COUNT_RANGE = f"SELECT count(*) FROM ({STATE_AT})"

SELECT_CHANGES = """
SELECT log.revision, log.key, log.value, log.create_revision, log.previous, old.value, old.create_revision
FROM log LEFT JOIN log AS old ON old.revision = log.previous
WHERE log.revision > ? AND log.revision <= ? ORDER BY log.revision LIMIT ?"""

SWEEP_REPLACED = """DELETE FROM log WHERE revision IN
(SELECT previous FROM log WHERE revision > :last AND revision <= :to AND previous > 0)"""
SWEEP_TOMBSTONES = "DELETE FROM log WHERE revision > :last AND revision <= :to AND value IS NULL"
