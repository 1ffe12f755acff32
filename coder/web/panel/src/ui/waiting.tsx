/** The place of rows that are not there yet; it shows after a moment, so that what comes at once does not flicker. */
import { Skeleton } from "@mantine/core";
import { useEffect, useState } from "react";
import rows from "./list.module.css";

const PATIENCE_MS = 300;
const NAMES = ["one", "two", "three", "four"];

export function Waiting() {
  const [late, setLate] = useState(false);
  useEffect(() => {
    const timer = setTimeout(() => setLate(true), PATIENCE_MS);
    return () => clearTimeout(timer);
  }, []);
  return (
    <ul className={rows.list} aria-busy="true" aria-label="Loading">
      {NAMES.map((name) => (
        <li key={name} className={rows.row}>
          <Skeleton height={12} width={80} visible={late} />
          <Skeleton height={12} width="40%" visible={late} />
        </li>
      ))}
    </ul>
  );
}
