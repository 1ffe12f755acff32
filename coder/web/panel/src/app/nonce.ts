/**
 * Styles that libraries write into the page at run time bear the answer's nonce, or the browser refuses them. Mantine takes one;
 * the diff view makes its style elements itself and knows of none, so every style element gets it when it is made.
 */
export const nonce = document.querySelector<HTMLMetaElement>('meta[name="nonce"]')?.content ?? "";

const create = document.createElement.bind(document);
document.createElement = ((name: string, options?: ElementCreationOptions) => {
  const element = create(name, options);
  if (name === "style") element.setAttribute("nonce", nonce);
  return element;
}) as typeof document.createElement;
