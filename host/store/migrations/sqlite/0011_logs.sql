-- Logs in pieces of many lines, for a row costs about as much as a piece does.

-- Lines of an attempt, in order: a JSON array of [sequence, at, level, text]. The pieces of an attempt don't overlap.
CREATE TABLE log_piece (
    run_id     BLOB NOT NULL,
    attempt    INTEGER NOT NULL,
    -- The numbers of its first and its last line, how many they are, and how many bytes their texts have.
    first      INTEGER NOT NULL,
    last       INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    text_bytes INTEGER NOT NULL,
    lines      TEXT NOT NULL,
    PRIMARY KEY (run_id, attempt, last)
);

INSERT INTO log_piece (run_id, attempt, first, last, count, text_bytes, lines)
SELECT run_id, attempt, min(sequence), max(sequence), count(*), sum(octet_length(text)),
    json_group_array(json_array(sequence, at, level, text) ORDER BY sequence)
FROM run_log GROUP BY run_id, attempt, (sequence - 1) / 250;

DROP TABLE run_log;
