/** The slash commands of an agent, offered while one is typed. */
import { type KeyboardEvent, useEffect, useState } from "react";
import type { Command } from "../live/wire";
import classes from "./session.module.css";

/** The slash commands that fit what is typed, as a list one walks with the arrows. */
export function useCommands(text: string, offered: readonly Command[], take: (text: string) => void) {
  const [at, setAt] = useState(0);
  const [closed, setClosed] = useState(false);
  const typed = /^\/(\S*)$/.exec(text)?.[1];
  const found =
    typed === undefined ? [] : offered.filter((each) => each.name.toLowerCase().startsWith(typed.toLowerCase()));
  const open = found.length > 0 && !closed;
  const current = Math.min(at, found.length - 1);
  // biome-ignore lint/correctness/useExhaustiveDependencies: what is typed is why the list begins anew
  useEffect(() => {
    setAt(0);
    setClosed(false);
  }, [text]);
  useEffect(() => {
    if (open) document.getElementById(`command-${current}`)?.scrollIntoView({ block: "nearest" });
  }, [open, current]);
  const choose = (command: Command | undefined) => command !== undefined && take(`/${command.name} `);
  const act = (key: string) => {
    if (key === "ArrowDown") setAt((current + 1) % found.length);
    else if (key === "ArrowUp") setAt((current + found.length - 1) % found.length);
    else if (key === "Enter" || key === "Tab") choose(found[current]);
    else if (key === "Escape") setClosed(true);
    else return false;
    return true;
  };
  return {
    field: {
      "aria-autocomplete": "list",
      "aria-controls": open ? "commands" : undefined,
      "aria-activedescendant": open ? `command-${current}` : undefined,
    } as const,
    /** Whether the list took a key. */
    key: (event: KeyboardEvent): boolean => {
      if (!open || event.ctrlKey || event.metaKey || !act(event.key)) return false;
      event.preventDefault();
      return true;
    },
    list: open && (
      <div className={classes.commands} id="commands" role="listbox" aria-label="Commands of the agent">
        {found.map((each, index) => (
          // biome-ignore lint/a11y/useKeyWithClickEvents: the field has the keys
          <div
            key={each.name}
            id={`command-${index}`}
            role="option"
            tabIndex={-1}
            aria-selected={index === current}
            onMouseDown={(event) => event.preventDefault()}
            onClick={() => choose(each)}
          >
            <code>
              /{each.name} <span className="dim">{each.hint}</span>
            </code>
            <span className="dim">{each.description}</span>
          </div>
        ))}
      </div>
    ),
  };
}
