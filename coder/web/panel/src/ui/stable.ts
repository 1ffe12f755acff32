/** A function that stays the same one while what it does is always the latest: what is given it need not be drawn again. */
import { useCallback, useLayoutEffect, useRef } from "react";

export function useStable<Given extends unknown[], Answer>(
  does: (...given: Given) => Answer,
): (...given: Given) => Answer {
  const latest = useRef(does);
  useLayoutEffect(() => {
    latest.current = does;
  });
  return useCallback((...given) => latest.current(...given), []);
}
