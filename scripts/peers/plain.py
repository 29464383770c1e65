"""What people write first: a thread pool over the client; images that are there already are skipped."""

from concurrent.futures import ThreadPoolExecutor

from scripts.peers.shop import AT_ONCE, Shop, play


def work(shop: Shop) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for bought in [pool.submit(shop.buy, number) for number in shop.missing()]:
            bought.result()


def believe(shop: Shop) -> dict[str, int]:
    missing = len(shop.missing())
    return {"done": len(shop.prompts) - missing, "waiting": missing}


if __name__ == "__main__":
    play(work=work, believe=believe, prepare=None)
