-- Outputs in pieces, so that none of them keeps other writes waiting.

-- What comes after the piece that is in the run's row, of runs that execute or have succeeded.
CREATE TABLE output_piece (
    run_id BLOB NOT NULL,
    number INTEGER NOT NULL,
    bytes  BLOB NOT NULL,
    PRIMARY KEY (run_id, number)
);
