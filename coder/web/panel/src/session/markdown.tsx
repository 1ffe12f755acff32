/** What an agent wrote, as text with structure. It is hostile: no HTML of its own, no pictures, no address but of the web. */
import { memo, type ReactNode, useDeferredValue } from "react";
import ReactMarkdown, { type Components } from "react-markdown";
import rehypeSanitize, { defaultSchema } from "rehype-sanitize";
import remarkGfm from "remark-gfm";
import { piecesOf } from "./pieces";
import classes from "./session.module.css";

const SCHEMA = { ...defaultSchema, protocols: { ...defaultSchema.protocols, href: ["http", "https", "mailto"] } };
/** Bold, but no heading of the page: those are in an order that an agent knows nothing of. */
const Heading = ({ children }: { children?: ReactNode }) => <div className={classes.heading}>{children}</div>;
const PARTS: Components = {
  h1: Heading,
  h2: Heading,
  h3: Heading,
  h4: Heading,
  h5: Heading,
  h6: Heading,
  a: ({ href, children }) =>
    href === undefined ? (
      children
    ) : (
      <a href={href} target="_blank" rel="noreferrer noopener nofollow">
        {children}
      </a>
    ),
  img: ({ alt, src }) => <span className="dim">[picture: {alt || String(src ?? "")}]</span>,
  pre: ({ children }) => (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable with the keyboard
    <pre tabIndex={0}>{children}</pre>
  ),
};

/** Text that is still being written: in pieces, so that what comes next is all that is read again. */
export function Growing({ text }: { text: string }) {
  const calm = useDeferredValue(text); // words may come faster than they can be drawn
  return piecesOf(calm).map((piece, at) => (
    // biome-ignore lint/suspicious/noArrayIndexKey: pieces only come behind others
    <Markdown key={at} text={piece} />
  ));
}

export const Markdown = memo(function Markdown({ text }: { text: string }) {
  return (
    <div className={classes.markdown}>
      <ReactMarkdown remarkPlugins={[remarkGfm]} rehypePlugins={[[rehypeSanitize, SCHEMA]]} components={PARTS}>
        {text}
      </ReactMarkdown>
    </div>
  );
});
