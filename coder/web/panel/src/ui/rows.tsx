/** A page that is a list: its head, rows that keys move through, what stands there when there are none, and older ones on demand. */
import { Button } from "@mantine/core";
import { PlusIcon } from "@primer/octicons-react";
import type { InfiniteData, UseInfiniteQueryResult } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import type { ReactNode } from "react";
import type { Binding } from "../app/keys";
import rows from "./list.module.css";
import { Failed, Key } from "./parts";
import { useSelection } from "./selection";
import { Waiting } from "./waiting";

export interface Listed<Item> {
  /** Undefined as long as nothing came. */
  items: readonly Item[] | undefined;
  error: Error | null;
  refetch(): unknown;
  /** How older ones are asked for, where there are some. */
  older?: ReactNode;
}

/** The items of a list that comes in pages. */
export function useListed<Item>(
  query: UseInfiniteQueryResult<InfiniteData<{ items: Item[] }>>,
  what: string,
): Listed<Item> {
  const { data, error, refetch, hasNextPage, fetchNextPage, isFetchingNextPage } = query;
  const older = (
    <div className={rows.more}>
      <Button variant="default" loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>
        Older {what}
      </Button>
    </div>
  );
  const items = data?.pages.flatMap((page) => page.items);
  return { items, error, refetch, ...(hasNextPage && { older }) };
}

interface RowsProps<Item extends { id: string | number }> extends Listed<Item> {
  title: string;
  /** Beside the title. */
  head: ReactNode;
  keys(current: Item | undefined): Binding[];
  /** The cells of a row. */
  row(item: Item): ReactNode;
  /** What is said where there are none. */
  none?: ReactNode;
}

const NOTHING: never[] = [];

export function Rows<Item extends { id: string | number }>(props: RowsProps<Item>) {
  const { title, head, items, error, refetch, keys, row, none, older } = props;
  const { current, select } = useSelection<Item>(items ?? NOTHING, keys);
  return (
    <>
      <header className={rows.head}>
        <h1>{title}</h1>
        {head}
      </header>
      {items === undefined && (error === null ? <Waiting /> : <Failed error={error} retry={() => void refetch()} />)}
      {items?.length === 0 && none}
      <ul className={rows.list}>
        {items?.map((item) => (
          <li
            key={item.id}
            className={rows.row}
            data-row={item.id}
            data-current={item.id === current?.id || undefined}
            onMouseDown={() => select(item.id)}
          >
            {row(item)}
          </li>
        ))}
      </ul>
      {older}
    </>
  );
}

interface TabsProps {
  label: string;
  to: "/changes" | "/sessions";
  /** The parameter of the address that says which are shown. */
  by: string;
  /** Values with their words; undefined: all. */
  of: readonly (readonly [string | undefined, string])[];
}

/** Which of a list are shown, as links. */
export function Tabs({ label, to, by, of }: TabsProps) {
  return (
    <nav className={rows.tabs} aria-label={label}>
      {of.map(([value, word]) => (
        <Link
          key={word}
          className={rows.tab}
          to={to}
          search={(value ? { [by]: value } : {}) as never}
          activeOptions={{ exact: true }}
        >
          {word}
        </Link>
      ))}
    </nav>
  );
}

/** The button in the head that makes another one; its key is `c`. */
export function Adding({ word, run, push }: { word: string; run(): void; push?: boolean }) {
  return (
    <Button
      {...(push && { className: rows.push })}
      size="xs"
      leftSection={<PlusIcon size={14} />}
      rightSection={<Key of="c" onAccent />}
      onClick={run}
    >
      {word}
    </Button>
  );
}
